"""What a training run or a service will need before it runs: memory, time, money."""
