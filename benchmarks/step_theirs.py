"""The other side of benchmarks/step.py: transformers' model with scaled_dot_product_attention."""

import os
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
import transformers
from step_case import Case, normal_pixels
from torch.nn.attention import SDPBackend, sdpa_kernel

LEARNING_RATE = 1e-5


class Theirs:
    """A step of Hugging Face's model from normalised clips on the device.

    `how` is "eager", "compiled" (torch.compile of the whole model) or "blocks" (torch.compile of each block,
    which compiles once for all of them); `attention` is "cudnn", or empty for what PyTorch chooses.
    """

    def __init__(self, case: Case, folder: Path, how: str, attention: str) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.set_float32_matmul_precision("high")  # TF32 on GPUs, as JAX has it; nothing on a CPU.
        self._case = case
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        kind = "VideoMAEForPreTraining" if case.task == "pretrain" else "VideoMAEForVideoClassification"
        model = getattr(transformers, kind).from_pretrained(folder, attn_implementation="sdpa")
        self._model = model.to(self._device).train(case.task != "classify")
        self._run = self._model
        if how == "compiled":
            self._run = torch.compile(self._model)
        if how == "blocks":
            for block in self._model.modules():
                if type(block).__name__ == "VideoMAELayer":
                    block.compile()
        inputs = {"pixel_values": normal_pixels(case.clips())}
        if case.task == "pretrain":
            inputs["bool_masked_pos"] = case.mask()
        if case.task == "finetune":
            inputs["labels"] = case.labels()
        self._inputs = {name: torch.from_numpy(array).to(self._device) for name, array in inputs.items()}
        if case.task != "classify":
            self._optimizer = torch.optim.AdamW(
                self._model.parameters(), LEARNING_RATE, (0.9, 0.95), weight_decay=0.05, fused=True
            )
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=case.dtype == "float16")
        self.compile_s: float | None = None
        self._how = how
        self.attention = attention or "as PyTorch chooses"

    def _precision(self) -> AbstractContextManager:
        dtype = getattr(torch, self._case.dtype)
        return torch.autocast(self._device.type, dtype=dtype, enabled=dtype != torch.float32)

    def _kernel(self) -> AbstractContextManager:
        """cuDNN's attention and no other where it is asked for; without a GPU, PyTorch's plain one."""
        if self.attention != "cudnn":
            return nullcontext()
        return sdpa_kernel(SDPBackend.CUDNN_ATTENTION if self._device.type == "cuda" else SDPBackend.MATH)

    def _step(self) -> torch.Tensor:
        if self._case.task == "classify":
            with torch.inference_mode(), self._precision(), self._kernel():
                return self._run(**self._inputs).logits
        with self._kernel():
            with self._precision():
                loss = self._run(**self._inputs).loss
            self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def steps(self, count: int) -> float:
        """Take some steps and wait for them; returns the last loss, or the mean square of the logits."""
        start = time.perf_counter()
        for _ in range(count):
            result = self._step()
        number = float(result.float().square().mean() if self._case.task == "classify" else result)
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        if self.compile_s is None:  # Compiling is a part of the first step.
            self.compile_s = 0.0 if self._how == "eager" else time.perf_counter() - start
        return number

    @property
    def device(self) -> str:
        return torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu"

    @property
    def device_peak(self) -> int | None:
        """Peak bytes on an accelerator; None on a CPU."""
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else None

    @property
    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__, "transformers": transformers.__version__}
