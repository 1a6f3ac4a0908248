"""Linear maps of the model: as torch has them, but at memory speed where it falls short of it."""

from torch import Tensor, nn

from workloads.matvec import FORMATS, is_fast, matvec


class Linear(nn.Linear):
    """A linear map without bias; few vectors on the CPU go through the kernels of `matvec`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if self.weight.dtype in FORMATS and is_fast(input):
            return matvec(self.weight, input)
        return super().forward(input)
