"""Spoils the files of a tiny model in every way that a seed brings, and loads it: an answer or one plain error, soon.

python tests/checkpoints/hostile_files.py --count 5000 --seed 1
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer import echo

SECONDS = 20
"""For one folder, on a busy machine; most take a hundredth of it."""

GIBIBYTES = 24
"""Of address space, of which most is never touched."""

sys.path.insert(0, str(Path(__file__).parents[1]))


def flip_bits(file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(chance.choice([1, 3, 50])):
        data[chance.randrange(min(len(data), chance.choice([100, len(data)])))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def truncate(file: Path, chance: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: chance.choice([0, 1, 7, 8, 100, chance.randrange(len(data))])])


def lengthen(file: Path, chance: random.Random) -> None:
    file.write_bytes(file.read_bytes() + chance.randbytes(chance.choice([1, 8, 4096])))


def replace_bytes(file: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    at = chance.randrange(len(data))
    data[at : at + chance.choice([1, 8, 200])] = chance.randbytes(chance.choice([0, 8, 200]))
    file.write_bytes(data)


ODD: list[Any] = [None, -1, 0, 1, 1.5, 10**5, 10**9, 2**63, 10**30, "", "x", True, [], [0], {}, {"a": 1}, "../../etc"]


def odd_value(file: Path, chance: random.Random) -> None:
    """Another value somewhere in a JSON file."""
    content = json.loads(file.read_text())
    place = content
    while True:
        key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if isinstance(place[key], (dict, list)) and place[key] and chance.random() < 0.7:
            place = place[key]
            continue
        place[key] = chance.choice(ODD)
        break
    file.write_text(json.dumps(content))


def deep_json(file: Path, chance: random.Random) -> None:
    depth = chance.choice([100, 10_000, 200_000])
    opening, closing = chance.choice([('{"a":', "}"), ("[", "]")])
    file.write_text(opening * depth + "1" + closing * depth)


def lying_header(file: Path, chance: random.Random) -> None:
    """A safetensors header whose sizes, types, offsets or names are not those of the data."""
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    name = chance.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    kind = chance.randrange(7)
    if kind == 0:
        entry["shape"] = chance.choice([[2**40, 2**40], [-1], [0], [10**9], [], [2**63]])
    elif kind == 1:
        entry["dtype"] = chance.choice(["F64", "I8", "BF16", "U8", "BOOL", "F8_E4M3", "X9", "I64", 3])
    elif kind == 2:
        entry["data_offsets"] = chance.choice([[0, 2**62], [-4, 4], [8, 0], [len(data), len(data) + 4], "no", [1]])
    elif kind == 3:
        header[name + chance.choice(["x", "\0", "../"])] = header.pop(name)
    elif kind == 4:
        header[name] = chance.choice(ODD)
    elif kind == 5:
        entry["shape"] = [*entry["shape"], 1][::-1]
    text = json.dumps(header).encode()
    claimed = len(text) if kind != 6 else chance.choice([0, 1, 2**31, 2**62, 2**64 - 1, len(data)])
    file.write_bytes(struct.pack("<Q", claimed) + text + data[8 + size :])


def shards(file: Path, chance: random.Random) -> None:
    """An index in place of the weights, that names files which are not the model's, or itself."""
    stored = file.read_bytes()
    header = json.loads(stored[8 : 8 + struct.unpack("<Q", stored[:8])[0]])
    names = [name for name in header if name != "__metadata__"]
    target = chance.choice(
        ["model.safetensors.index.json", "../model.safetensors", "/etc/passwd", "absent.safetensors", ".", "", 7, None]
    )
    index = {"metadata": {"total_size": chance.choice(ODD)}, "weight_map": dict.fromkeys(names, target)}
    (file.parent / "model.safetensors.index.json").write_text(json.dumps(chance.choice([index, index["weight_map"]])))
    file.unlink()


Change = Callable[[Path, random.Random], None]
ANY: tuple[Change, ...] = (flip_bits, truncate, lengthen, replace_bytes)
JSON: tuple[Change, ...] = (*ANY, odd_value, odd_value, odd_value, deep_json)
CHANGES: dict[str, tuple[Change, ...]] = {
    "model.safetensors": (*ANY, lying_header, lying_header, shards),
    "pytorch_model.bin": ANY,
    "config.json": JSON,
    "tokenizer.json": JSON,
    "tokenizer_config.json": JSON,
    "config_sentence_transformers.json": JSON,
}


def spoiled(model: Path, folder: Path, seed: int) -> str:
    """Copies a model, spoils one of its files, and says how."""
    chance = random.Random(seed)
    shutil.copytree(model, folder)
    name = chance.choice(list(CHANGES))
    if name == "pytorch_model.bin":
        import torch
        from safetensors.torch import load_file

        torch.save(load_file(folder / "model.safetensors"), folder / name)
        (folder / "model.safetensors").unlink()
    change = chance.choice(CHANGES[name])
    change(folder / name, chance)
    return f"{change.__name__} of {name}"


def complaint(folder: Path) -> str:
    """What is wrong with the way in which a folder loads or fails to load; an empty string where nothing is."""
    from fastce import CrossEncoder

    start = time.perf_counter()
    model = None
    try:
        model = CrossEncoder(folder)
        model.predict([("a man", "is playing")])
    except (ValueError, OSError) as error:
        if model is None and folder.name not in str(error):
            return f"the error does not name the folder: {type(error).__name__}: {error}"
    except Exception:
        return f"another kind of error: {traceback.format_exc(limit=-4)}"
    took = time.perf_counter() - start
    return f"it took {took:.0f} s" if took > SECONDS else ""


def too_slow(*_: object) -> None:
    raise SystemExit(f"more than {3 * SECONDS} s for one folder")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import transformers
    from tiny_models import save_tiny_model

    from fastce import CrossEncoder

    transformers.logging.set_verbosity(60)
    transformers.utils.logging.disable_progress_bar()
    resource.setrlimit(resource.RLIMIT_AS, (GIBIBYTES << 30, GIBIBYTES << 30))
    signal.signal(signal.SIGALRM, too_slow)
    echo(f"{options.count} spoiled models from seed {options.seed} on")
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        save_tiny_model(model, "bert")
        CrossEncoder(model).save(model)
        faults = 0
        for seed in range(options.seed, options.seed + options.count):
            folder = Path(temporary) / f"spoiled-{seed}"
            how = spoiled(model, folder, seed)
            echo(f"seed {seed}: {how}", nl=False)  # stays where the process dies
            signal.alarm(3 * SECONDS)
            if found := complaint(folder):
                faults += 1
            echo(f": {found}" if found else "\r", nl=bool(found))
            signal.alarm(0)
            shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    echo(f"{faults} faults, peak memory {peak} MiB")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
