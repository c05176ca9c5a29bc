"""The CUDA sources on the CPU: a device for the launcher, and producers of device data."""
