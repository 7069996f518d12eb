"""Write scenes of two handwritten digits with captions as image files: a captioned folder to try.

The scenes are those of the data set ``CaptionedDigits``: scikit-learn's real digits, 12 x 16
pixels, e.g. "a seven to the left of a small three". ``DIR/images/000000.png`` ... and either
``DIR/captions.jsonl`` or ``DIR/captions/000000.txt`` ...; ``CaptionedImages`` reads both.
"""

import argparse
import json
from pathlib import Path

from mmsparsedit.apis.launch import run_tool


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--num-scenes', type=int, default=20_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--captions', choices=('jsonl', 'txt'), default='jsonl')
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)

    from PIL import Image

    from mmsparsedit.datasets.captioned_digits import CaptionedDigits

    images = args.out / 'images'
    if images.exists():
        raise ValueError(f'{images} exists: name another folder or remove it.')
    dataset = CaptionedDigits(args.num_scenes, args.seed)
    images.mkdir(parents=True)
    lines = []
    for i, (scene, picture) in enumerate(zip(dataset.scenes, dataset.pictures, strict=True)):
        Image.fromarray(picture).save(images / f'{i:06d}.png')
        lines.append({'file_name': f'{i:06d}.png', 'caption': scene.caption})
    if args.captions == 'jsonl':
        text = ''.join(json.dumps(line) + '\n' for line in lines)
        (args.out / 'captions.jsonl').write_text(text, encoding='utf-8')
    else:
        (args.out / 'captions').mkdir()
        for line in lines:
            name = Path(line['file_name']).with_suffix('.txt')
            (args.out / 'captions' / name).write_text(line['caption'] + '\n', encoding='utf-8')
    print(f'{len(lines)} scenes in {args.out}; the first: {lines[0]["caption"]}')
    return 0


if __name__ == '__main__':
    run_tool(main)
