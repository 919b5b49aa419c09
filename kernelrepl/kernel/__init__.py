"""The host's side of one kernel: its process, its channel, its Jupyter sockets."""

from kernelrepl.kernel.cgroups import GroupLauncher, NotDelegated
from kernelrepl.kernel.kernel import Kernel, KernelDied
from kernelrepl.kernel.process import Launch, spawn
from kernelrepl.kernel.startup import start_kernel
from kernelrepl.kernel.zygote import WarmLauncher

__all__ = ["GroupLauncher", "Kernel", "KernelDied", "Launch", "NotDelegated", "WarmLauncher", "spawn", "start_kernel"]
