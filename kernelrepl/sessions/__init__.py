"""Sessions: their kernels, their queues of executions, what is kept of them."""
