"""A run whose parameters, gradients and optimizer states are split over processes (FSDP2).

Every block is a group of its own, which is whole while it computes; everything else, routers and
ratios among it, is in the group of the model. What a run saves has the form of any other: the first
process keeps the model whole on the CPU, and writes that with the values that all of them gather.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffcr.binding.model import get_compressor, is_routed
from diffcr.errors import DiffCRError
from diffcr.files import replacing_directory, write_json
from diffcr.hosts import host_blocks_within
from diffcr.training.progress import STATE_FILE, Progress, TrainedState, forget_old_progress
from diffcr.training.task import TextToImage

_TENSORS_DIRECTORY = "state"


class ShardedRun:
    """The model of a run, split over the processes of an accelerator.

    Args:
        task: Its model, whole in every process, is split in place.
        accelerator: accelerate's.

    Raises:
        DiffCRError: There is one process.
    """

    def __init__(self, task: TextToImage, accelerator: Any) -> None:
        if accelerator.num_processes == 1:
            raise DiffCRError(
                "sharding is 'fsdp' with one process, which has nothing to share: start several "
                "with torchrun, or give 'none'"
            )
        self.model, self.accelerator = task.model, accelerator
        self._whole = task.with_own_model() if accelerator.is_main_process else None
        shard_model(task.model, accelerator.device)
        if is_routed(task.trained):
            get_compressor(task.trained).sharded = True

    def save_result(self, save: Callable[[TextToImage], None]) -> None:
        """Call `save` in the first process with a task whose model holds the present values."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        values = get_model_state_dict(self.model, options=options)
        if self._whole is not None:
            self._whole.model.load_state_dict(values)
            save(self._whole)
        self.accelerator.wait_for_everyone()

    def save_progress(self, directory: Path, state: TrainedState, progress: Progress) -> None:
        """As `progress.save_progress`; each process writes what it holds, as safetensors."""
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        with self._replacing(directory / f"step-{progress.step:07d}") as written:
            place = str(written / _TENSORS_DIRECTORY)
            writer = HuggingFaceStorageWriter(place, save_distributed=True)
            save(_with_dimensions(state.tensors()), storage_writer=writer)
            if self.accelerator.is_main_process:
                write_json(written / STATE_FILE, asdict(progress))
        if self.accelerator.is_main_process:
            forget_old_progress(directory)

    @contextmanager
    def _replacing(self, target: Path) -> Iterator[Path]:
        """`replacing_directory` of the first process, for all of them."""
        if self.accelerator.is_main_process:
            with replacing_directory(target) as written:
                self._agree(written)
                yield written
                self.accelerator.wait_for_everyone()
        else:
            yield self._agree(None)
            self.accelerator.wait_for_everyone()

    def _agree(self, path: Path | None) -> Path:
        from accelerate.utils import broadcast_object_list

        (agreed,) = broadcast_object_list([str(path)])
        return Path(agreed)


def shard_model(model: nn.Module, device: torch.device) -> None:
    """Split a model's parameters over all processes, in place; `device` is this process's."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # It is for a later change in place of what a block returns; methods make none.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in list(host_blocks_within(model)):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def read_sharded_state(directory: Path, state: TrainedState) -> None:
    """Fill a run's tensors with those of a checkpoint; any number of processes may have written it.

    Raises:
        DiffCRError: It is damaged, or of another run.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    place = directory / _TENSORS_DIRECTORY
    if not place.is_dir():
        raise DiffCRError(f"{place} is missing: it was not written with sharding 'fsdp'")
    reader = HuggingFaceStorageReader(str(place))
    try:
        stored = reader.read_metadata().state_dict_metadata
        tensors = state.tensors()
        for path in stored:
            kind, _, rest = path.partition("/")
            if kind == "optimizer":
                key, _, name = rest.partition("/")
                tensors[path] = _empty_state(key, state.parameters[name])
        flat = _with_dimensions(tensors)
        load(flat, storage_reader=reader)
    except (CheckpointException, OSError, KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DiffCRError(f"{place} is damaged ({reason}): copy it again") from error
    state.fill({path: value.view(tensors[path].shape) for path, value in flat.items()})


def _empty_state(key: str, parameter: nn.Parameter) -> Tensor:
    return torch.zeros(()) if key == "step" else torch.zeros_like(parameter.detach())


def _with_dimensions(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Numbers as tensors of one value: safetensors are read in slices."""
    return {name: t.reshape(1) if t.dim() == 0 else t for name, t in tensors.items()}
