"""Which of T training timesteps a shorter process visits (Nichol and Dhariwal 2021, as in DiT)."""


def space_timesteps(num_timesteps: int, spec: str) -> list[int]:
    """Original timesteps kept by a respacing, ascending.

    Args:
        num_timesteps: T of training.
        spec: ``'250'``: 250 steps spread over [0, T-1], ends included, rounded. ``'10,20,30'``:
            that many in each of three equal sections. ``'ddim25'``: a whole stride from 0, as in
            the DDIM paper. ``''``: all T. So ``'25'`` and ``'ddim25'`` differ.

    Raises:
        ValueError: a count below 1 or above its section, or no whole stride gives the count.
    """
    if spec == '':
        return list(range(num_timesteps))
    if spec.startswith('ddim'):
        count = _whole(spec[4:], spec)
        for stride in range(1, num_timesteps + 1):
            kept = range(0, num_timesteps, stride)
            if len(kept) == count:
                return list(kept)
        reachable = {len(range(0, num_timesteps, s)) for s in range(1, num_timesteps + 1)}
        nearest = sorted(sorted(reachable, key=lambda n: abs(n - count))[:2])
        raise ValueError(
            f'respacing {spec!r}: no whole stride visits exactly {count} of {num_timesteps} '
            f'timesteps; the nearest counts are {nearest}. Use one of them, or {str(count)!r} '
            'for rounded steps.'
        )
    counts = [_whole(part, spec) for part in spec.split(',')]
    size, extra = divmod(num_timesteps, len(counts))
    kept, start = [], 0
    for i, count in enumerate(counts):
        length = size + (i < extra)
        if not 1 <= count <= length:
            raise ValueError(
                f'respacing {spec!r}: {count} steps in a section of {length} timesteps; expected '
                f'1 to {length}.'
            )
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0  # accumulated, not multiplied: the reference rounds a running sum
        for _ in range(count):
            kept.append(start + round(position))
            position += stride
        start += length
    return kept


def _whole(text: str, spec: str) -> int:
    if not text.strip().isdigit():
        raise ValueError(
            f"respacing {spec!r}: expected '', a number of steps such as '250', numbers per "
            "section such as '10,20,30', or 'ddim25'."
        )
    return int(text)
