"""NVIDIA's GPUs, as XLA's compiler has them described where there is none."""

import re
from dataclasses import dataclass

from videomae_jax.hardware import GIB, Hardware, peak_flops


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU: what the compiler asks for of it, in the compiler's units."""

    name: str
    kind: str
    """JAX's name of it."""
    capability: tuple[int, int]
    memory_bytes: int
    bytes_per_second: int
    l2_bytes: int
    cores: int
    """Streaming multiprocessors; the next four are of each."""
    units: int
    """For products in float32."""
    threads: int
    shared_bytes: int
    shared_block_bytes: int
    """The most that one block can have, where it asks for more than 48 KiB."""
    clock_ghz: float

    @property
    def peak_flops(self) -> float:
        found = peak_flops(self.kind)
        assert found is not None, self.kind
        return found

    @property
    def hardware(self) -> Hardware:
        major, minor = self.capability
        return Hardware("gpu", self.kind, major + minor / 10)

    @property
    def workspace_factor(self) -> int:
        """What cuDNN 9.28's attention asks for to go backward, over 4 bytes for each query and value and one
        more: 1 of H100 and B200; for A100 and L4, 1.98 to 1.99 of it, which is taken for 2."""
        return 1 if self.capability[0] >= 9 else 2

    def description(self) -> str:
        """The `target_config` of JAX's topologies."""
        major, minor = self.capability
        # Instructions that only this generation has, as those of its matrix units.
        extension = "feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
        return f"""
            gpu_device_info {{
              threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
              shared_memory_per_core: {self.shared_bytes} threads_per_core_limit: {self.threads}
              core_count: {self.cores} fpus_per_core: {self.units}
              block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
              memory_bandwidth: {self.bytes_per_second} l2_cache_size: {self.l2_bytes}
              clock_rate_ghz: {self.clock_ghz} device_memory_size: {self.memory_bytes}
              shared_memory_per_block_optin: {self.shared_block_bytes}
              cuda_compute_capability {{ major: {major} minor: {minor} {extension} }}
              registers_per_core_limit: 65536 registers_per_block_limit: 65536
              thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
            }}
            platform_name: "CUDA" runtime_version {{ major: 13 }}
            dnn_version_info {{ major: 9 minor: 10 }} device_description_str: "{self.kind}"
        """


# T4 and L4 from NVIDIA's deviceQuery and its table of compute capabilities (T4: the 14.56 GiB that recent
# drivers leave); the others from openxla/xla, xla/backends/gpu/target_config/specs.
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("t4", "Tesla T4", (7, 5), int(14.56 * GIB), 320_064_000_000, 4194304, 40, 64, 1024, 65536, 65536,
            1.59),
        Gpu("l4", "NVIDIA L4", (8, 9), 23612293120, 300_048_000_000, 50331648, 58, 128, 1536, 102400, 101376,
            2.04),
        Gpu("a100", "NVIDIA A100-SXM4-80GB", (8, 0), 85100068864, 2_039_040_000_000, 41943040, 108, 64, 2048,
            167936, 166912, 1.41),
        Gpu("h100", "NVIDIA H100 80GB HBM3", (9, 0), 84942979072, 3_352_320_000_000, 52428800, 132, 128, 2048,
            233472, 232448, 1.98),
        Gpu("h200", "NVIDIA H200", (9, 0), 151397597184, 4_800_000_000_000, 52428800, 132, 128, 2048, 233472,
            232448, 1.98),
        Gpu("b200", "NVIDIA B200", (10, 0), 191514411008, 7_672_320_000_000, 132644864, 148, 128, 2048,
            233472, 232448, 1.965),
    )
}  # fmt: skip


# cuDNN's attention takes memory for itself, of which XLA knows only where there is a GPU.
_BACKWARD = re.compile(
    r"= \(b?f16\[(\d+),(\d+),(\d+),(\d+)\][^\n]*custom_call_target=\"__cudnn\$fmha\w*Backward\""
)


def attention_workspace(hlo: str) -> int:
    """Bytes of the largest backward pass in a program: a float32 for each value of the queries, and one more
    for each query. None of these are there at the same time."""
    shapes = [map(int, found) for found in _BACKWARD.findall(hlo)]
    return max(
        (4 * clips * heads * queries * (width + 1) for clips, heads, queries, width in shapes), default=0
    )
