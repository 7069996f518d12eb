"""Ways to damage a file, seeded, and what damaged files must not do: ``test_damaged_files.py``."""

import contextlib
import io
import json
import os
import random
import sys
import tempfile
import zipfile

ODD = (None, True, -1, 0, 2**70, 1e308, float('nan'), '', '../x', 'no such', [], {}, [[]], {'a': 1})


def damaged(data, rng):
    """The bytes of a file with one thing wrong, anywhere in it."""
    data = bytearray(data)
    at = rng.randrange(len(data))
    size = min(rng.choice((1, 2, 8, 64, 1024)), len(data) - at)
    way = rng.randrange(7)
    if way < 2:  # what disks do is tried most
        data[at] ^= 1 << rng.randrange(8)
    elif way == 2:
        data[at : at + size] = rng.randbytes(size)
    elif way == 3:
        data[at : at + size] = bytes(size)
    elif way == 4:
        del data[at:]
    elif way == 5:
        del data[at : at + size]
    else:
        data[at:at] = data[at : at + size] or b'\0'
    return bytes(data)


def damaged_member(data, rng):
    """A zip whose members are damaged and whose checksums are right: written so by somebody."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, 'w') as target:
        members = source.infolist()
        # a pickle says what is called; elsewhere all members are alike
        chosen = next((m for m in members if m.filename.endswith('data.pkl')), rng.choice(members))
        for member in members:
            content = source.read(member)
            target.writestr(member, damaged(content, rng) if member is chosen else content)
    return out.getvalue()


def damaged_json(data, rng):
    """JSON, or JSON lines, where one value is of a kind that nobody expects."""
    lines = [data] if data[:1] == b'{' and data.count(b'\n{') == 0 else data.splitlines()
    number = rng.randrange(len(lines))
    content = json.loads(lines[number])
    place, key, node = None, None, content
    while isinstance(node, dict | list) and node and (place is None or rng.random() < 0.8):
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        place, node = node, node[key]
    if isinstance(place, dict) and rng.random() < 0.2:
        del place[key]
    else:
        place[key] = rng.choice(ODD)
    lines[number] = json.dumps(content).encode()
    return b'\n'.join(lines)


def copies(data, count, seed, *ways):
    """``count`` damaged copies of a file, each with the seed that makes it alone."""
    for number in range(count):
        key = f'{seed} {number}'
        yield key, ways[number % len(ways)](data, random.Random(key))


# MMEngine copies a config into a folder of its own before it reads it
_OWN = os.path.join(tempfile.gettempdir(), 'tmp')
_seen = None
_WATCHED = ('os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'subprocess.Popen')


def _watch(event, args):
    if _seen is None:
        return
    if event in _WATCHED or event == 'pickle.find_class':
        _seen.append((event, args))
    elif event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+'):
        if isinstance(args[0], int) or str(args[0]).startswith(_OWN):
            return  # a number: Python keeps what it compiled of a module
        _seen.append((event, args))


@contextlib.contextmanager
def watched():
    """Programs started, files opened to write, and names looked up for a pickle, meanwhile."""
    global _seen
    if not _installed:
        _installed.append(sys.addaudithook(_watch))  # which stays, idle
    _seen = found = []
    try:
        yield found
    finally:
        _seen = None


_installed = []
