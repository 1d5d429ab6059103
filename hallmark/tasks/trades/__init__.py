"""Who started a trade: the buyer or the seller?"""
