"""Machine code of NVIDIA's GPUs (SASS): read from what cuobjdump prints, and executed, one thread
at a time, on a CPU."""
