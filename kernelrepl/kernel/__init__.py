"""The host's side of one kernel: its process, its channel, its Jupyter sockets."""

from kernelrepl.kernel.kernel import Kernel, KernelDied
from kernelrepl.kernel.launch import Launch, spawn
from kernelrepl.kernel.zygote import WarmLauncher

__all__ = ["Kernel", "KernelDied", "Launch", "WarmLauncher", "spawn"]
