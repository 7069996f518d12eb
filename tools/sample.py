"""Sample what you ask for: ``python tools/sample.py CONFIG CHECKPOINT --labels 3 7 --out d``."""

import argparse
import sys
import time
from pathlib import Path

from mmsparsedit.apis.launch import (
    ConfigError,
    load_config,
    parse_options,
    parse_sampling,
    run_tool,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Every image is a request (seed, label or prompt) and depends on nothing else. '
        'Each is written as PNG that carries its request, with a labelled grid of all.'
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--labels', type=int, nargs='+', help='class labels')
    parser.add_argument('--prompt', nargs='+', help='prompts, for text to image')
    parser.add_argument('--prompts', help='file with one prompt a line')
    parser.add_argument('--seeds', default='0', help='such as 7, 0-15 or 1,4,10-12 (default 0)')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--device', help='cpu or cuda (default: cuda where there is one)')
    parser.add_argument('--out', required=True, help='folder of the images')
    parse_sampling(parser)
    parse_options(parser)
    return parser.parse_args()


def parse_seeds(text: str) -> list[int]:
    """'1,4,10-12' -> [1, 4, 10, 11, 12]."""
    seeds: list[int] = []
    for part in text.split(','):
        first, dash, last = part.partition('-')
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ConfigError(f'--seeds {text!r}: expected numbers and ranges such as 1,4,10-12.')
        if dash and int(last) < int(first):
            raise ConfigError(f'--seeds {text!r}: {part} is empty, write {last}-{first}.')
        seeds += range(int(first), int(last if dash else first) + 1)
    return seeds


def build_requests(args: argparse.Namespace) -> list[dict]:
    """All conditions with all seeds, conditions first."""
    prompts = list(args.prompt or [])
    if args.prompts:
        text = Path(args.prompts).read_text(encoding='utf-8')
        prompts += [line.strip() for line in text.splitlines() if line.strip()]
    if prompts and args.labels:
        raise ConfigError('give --labels or prompts, not both.')
    seeds = parse_seeds(args.seeds)
    if prompts:
        return [dict(prompt=prompt, seed=seed) for prompt in prompts for seed in seeds]
    if args.labels:
        return [dict(label=label, seed=seed) for label in args.labels for seed in seeds]
    return [dict(seed=seed) for seed in seeds]


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.apis import choose_sampler, generate, init_model
    from mmsparsedit.apis.devices import check_device
    from mmsparsedit.visualization import labelled_grid, save_image

    config = load_config(args.config, args.cfg_options)
    choose_sampler(config.model, args.sampler, args.num_steps, args.cfg_scale)
    requests = build_requests(args)
    device = check_device(args.device)
    generator = init_model(config, args.checkpoint, device)
    asked = 'prompt' if hasattr(generator, 'text_encoder') else 'label'
    conditional = asked == 'prompt' or generator.network.num_classes is not None
    if conditional and asked not in requests[0]:
        raise ConfigError(f'the generator is conditional: say what to sample with --{asked}s.')
    if generator.autoencoder is not None:
        generator.autoencoder.check()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    setting = dict(
        sampler=config.model.sampler.to_dict(),
        cfg_scale=generator.guidance.scale,
        checkpoint=Path(args.checkpoint).name,
        config=Path(args.config).name,
    )
    images, captions = [], []
    for request, result in zip(
        requests, generate(generator, requests, args.batch_size, progress_line(began, requests)),
        strict=True,
    ):  # fmt: skip
        if 'video' in result:
            from mmsparsedit.visualization import save_mp4

            name = f'{file_stem(request)}.mp4'
            save_mp4(out / name, result.video, request={**request, **setting})
            images.append(result.video[len(result.video) // 2])
        else:
            save_image(out / f'{file_stem(request)}.png', result.image, {**request, **setting})
            images.append(result.image)
        condition = request.get('prompt', request.get('label', ''))
        captions.append(f'{condition} #{request["seed"]}'.strip())
    columns = len({request['seed'] for request in requests})
    cell = 240 if 'prompt' in requests[0] else 64  # a caption is to be read
    grid = labelled_grid(images, captions, columns if 1 < columns <= 16 else None, cell)
    grid.save(out / 'grid.png')
    print(f'{len(images)} images and grid.png in {out}')


def file_stem(request: dict) -> str:
    """A file name that tells the request: label and seed, or the prompt's first words."""
    if 'label' in request:
        return f'label{request["label"]}_seed{request["seed"]}'
    words = ''.join(c if c.isalnum() else '_' for c in request.get('prompt', 'sample')[:60])
    return f'{words}_seed{request["seed"]}'


def progress_line(began: float, requests: list):
    def show(done: int) -> None:
        seconds = time.perf_counter() - began
        left = int(seconds / done * (len(requests) - done))
        end = '\n' if done == len(requests) else '\r' if sys.stdout.isatty() else '\n'
        sys.stdout.write(
            f'sampled {done}/{len(requests)}  {done / seconds:.2f} img/s  '
            f'ETA {left // 60}:{left % 60:02d}{end}'
        )
        sys.stdout.flush()

    return show


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
