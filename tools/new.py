"""A config for your own images, captioned images or videos, and the reference to measure against.

    mmsparsedit new my_images --like xl_256
    mmsparsedit new my_videos --like sparselatte/ucf101 --vae checkpoints/sd-vae-ft-ema

Images lie in one folder per class, or beside text files with their captions, or are named with
captions by metadata.jsonl; videos are files, or folders of frames, in class folders or not. What
cannot work is refused here, before anything is extracted or trained.
"""

import argparse
import shlex
from pathlib import Path

from mmsparsedit.apis.launch import ConfigError, load_config, output_file, run_tool

LINE = '  mmsparsedit {}'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', help='of your data')
    parser.add_argument('--like', help='config of the package to inherit (default: one that suits)')
    parser.add_argument('--out', type=output_file, help='config to write (default: FOLDER_LIKE.py)')
    parser.add_argument('--size', type=int, help="pixels of a side (default: the config's)")
    parser.add_argument('--num-samples', type=int, help='that a test makes and measures')
    parser.add_argument('--data', default='data', help='for latents and reference (default: data)')
    parser.add_argument('--vae', help='folder of the autoencoder')
    parser.add_argument('--no-reference', action='store_true', help='write the config alone')
    parser.add_argument('--weights', help='of Inception or I3D, for the reference')
    parser.add_argument(
        '--random-inception',
        type=int,
        metavar='SEED',
        help='network with seeded random weights: for trying out only, the numbers mean nothing',
    )
    parser.add_argument('--device', help='for the reference (default: a GPU where there is one)')
    parser.add_argument('--force', action='store_true', help='replace a config of that name')
    parser.add_argument('--traceback', action='store_true', help='show where an error arose')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from mmsparsedit.apis.own_config import plan, spread
    from mmsparsedit.utils.files import write_text

    project = plan(args.folder, args.like, args.size, args.num_samples, args.data, args.vae)
    if args.random_inception is not None and project.folder.kind != 'videos':
        extractor = dict(type='RandomInception', seed=args.random_inception)
        next(v for _, key, v in project.config if key == 'test_evaluator')['extractor'] = extractor
    name = Path(args.folder).resolve().name
    out = args.out or Path(f'{name}_{Path(project.like).stem}.py')
    if out.exists() and not args.force:
        raise ConfigError(f'{out} exists: name another --out, or --force to replace it.')
    write_text(out, project.render())
    if project.prompts:
        lines = [' '.join(text.split()) for text in spread(project.folder.captions, 1000)]
        write_text(project.prompts, '\n'.join(lines) + '\n')
    check(out)
    print(f'{project.folder.describe()}\n{out}: as {project.like}, {project.size} pixels')
    for note in project.notes:
        print(f'note: {note}')
    made = not args.no_reference and make_reference(args, project)
    print('next:')
    config = shlex.quote(str(out))
    if project.latents:
        vae = '' if args.vae else ' --vae FOLDER'
        flip = ' --no-flip' if project.text else ''
        print(LINE.format(f'extract {config} --out {project.latents}{vae}{flip}'))
    if project.text:
        print(LINE.format(f'extract-text {config} --out {project.text} --encoder FOLDER'))
    print(LINE.format(f'train {config}'))
    if not made:
        print(LINE.format(reference_command(args, project)))
    print(LINE.format(f'test {config} work_dirs/{out.stem}/iter_N.pth --show-dir samples'))


def check(path: Path) -> None:
    """Build what the config describes, without memory for its weights.

    Raises:
        ValueError: parts that do not fit together.
    """
    import torch
    from mmengine.registry import init_default_scope

    from mmsparsedit.apis.launch import check_classes
    from mmsparsedit.registry import MODELS

    config = load_config(str(path))
    check_classes(config)
    init_default_scope('mmsparsedit')
    with torch.device('meta'):
        MODELS.build(config.model)


def reference_command(args: argparse.Namespace, project) -> str:
    folder, out = shlex.quote(str(args.folder)), shlex.quote(project.reference)
    how = f' --size {project.size}'
    if project.folder.kind == 'videos':
        how += f' --video --frames {frames_of(project)[0]} --interval {frames_of(project)[1]}'
    elif args.random_inception is not None:
        how += f' --random-inception {args.random_inception}'
    return f'reference {folder} {out}{how}'


def frames_of(project) -> tuple[int, int]:
    """Frames of a clip and the interval between them, of videos."""
    dataset = next(v for _, key, v in project.config if key == 'train_dataloader')['dataset']
    clip = dataset.get('clip', dataset)
    return clip['num_frames'], clip['frame_interval']


def make_reference(args: argparse.Namespace, project) -> bool:
    """Write the reference; False, with a line of why, where the network for it is missing."""
    from mmengine.device import get_device

    from mmsparsedit.evaluation import features
    from mmsparsedit.evaluation.build import build_image_reference, build_video_reference
    from mmsparsedit.evaluation.images import FolderImages
    from mmsparsedit.evaluation.videos import ClipProtocol, VideoFolder
    from mmsparsedit.evaluation.weight_files import I3D_FILES, INCEPTION_FILES

    device = args.device or get_device()
    videos = project.folder.kind == 'videos'
    try:
        if videos:
            extractor = features.I3DExtractor(args.weights, device=device)
        elif args.random_inception is not None:
            extractor = features.RandomInception(args.random_inception, device=device)
        else:
            extractor = features.InceptionExtractor(args.weights, device=device)
    except FileNotFoundError as error:
        if args.weights:
            raise ConfigError(f'--weights: {error}') from error
        file = (I3D_FILES if videos else INCEPTION_FILES)[0]
        print(
            f'note: no reference yet, because {file.name} is not in checkpoints/. It measures '
            f'samples, training does not need it: {file.url}'
        )
        return False
    except (ImportError, OSError) as error:
        print(f'note: no reference yet: {" ".join(str(error).split())}')
        return False
    Path(project.reference).parent.mkdir(parents=True, exist_ok=True)
    if videos:
        frames, interval = frames_of(project)
        protocol = ClipProtocol(frames, interval, True, 2048, project.size)
        source = VideoFolder(args.folder, protocol)
        found = build_video_reference(source, extractor, project.reference)
    else:
        source = FolderImages(args.folder, project.size)
        found = build_image_reference(source, extractor, project.reference)
    print(f'{project.reference}: {found["count"]} samples')
    return True


if __name__ == '__main__':
    arguments = parse_args()
    run_tool(main, arguments)
