"""What answers: the HTTP application around a bundle."""
