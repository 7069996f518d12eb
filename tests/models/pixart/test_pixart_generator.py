"""TextToImageGenerator and text encoders: prompts, dropped captions, guidance, T5."""

import copy
import socket

import numpy as np
import pytest
import torch

from mmsparsedit.models import HashTextEncoder, T5TextEncoder, TextToImageGenerator
from mmsparsedit.models.pixart.caption_cleaning import clean_caption

NETWORK = dict(
    type='SparsePixArt',
    input_size=8,
    in_channels=2,
    hidden_size=24,
    num_heads=2,
    caption_channels=16,
    model_max_length=12,
    num_bottom=1,
    num_sdtm=1,
    num_top=1,
)
PROMPTS = ['a seven', 'a small three to the left of a seven', '', 'one']


def generator(**changed) -> TextToImageGenerator:
    torch.manual_seed(0)
    arguments = dict(
        network=NETWORK,
        diffusion=dict(type='GaussianDiffusion'),
        sampler=dict(type='DDIMSampler', num_steps=5),
        prune=dict(
            type='TimestepPruneScheduler', r_min=0.4, r_max=0.8, token_grid=(4, 4), num_stages=2
        ),
        text_encoder=dict(type='HashTextEncoder', channels=16, max_length=12),
        cfg_scale=2.0,
    )
    model = TextToImageGenerator(**{**arguments, **changed})
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if '.merge_' not in name:
                parameter.normal_(std=0.1)
    return model.eval()


def test_dropped_captions_are_null_and_keep_their_mask():
    model = generator()
    condition = model.condition(prompt=PROMPTS)
    dropped = torch.tensor([True, False, True, False])
    changed = model.drop(condition, dropped)
    null = model.network.y_embedder.y_embedding
    torch.testing.assert_close(changed['y'][0], null, rtol=0, atol=0)
    torch.testing.assert_close(changed['y'][1], condition['y'][1], rtol=0, atol=0)
    torch.testing.assert_close(changed['mask'], condition['mask'], rtol=0, atol=0)
    assert condition['mask'].sum(1).tolist() == [3, 10, 1, 2]  # words and the end token


def test_guided_step_is_that_of_both_halves(monkeypatch):
    model = generator(sampler=dict(type='DDIMSampler', num_steps=1))
    # captions as they are given, not read beforehand
    monkeypatch.setattr(model.network, 'read_once', lambda condition: condition)
    condition = model.condition(prompt=PROMPTS[:2])
    seen, read = [], []
    network = model.network
    hooks = [
        network.register_forward_pre_hook(lambda module, args: seen.append(args)),
        network.y_embedder.register_forward_pre_hook(lambda module, args: read.append(args)),
    ]
    model.sample([1, 2], prompt=PROMPTS[:2])
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(read) == 1 and seen[0][0].shape[0] == 4
    y, mask = read[0]
    torch.testing.assert_close(mask, condition['mask'].repeat(2, 1), rtol=0, atol=0)
    null = network.y_embedder.y_embedding.expand(2, -1, -1)
    torch.testing.assert_close(y, torch.cat([condition['y'], null]), rtol=0, atol=0)


@torch.no_grad()
def test_guidance_without_mask_reads_padding_in_both_halves():
    """PixArtMS.forward_with_cfg passes no mask on; training and unguided calls keep theirs."""
    model = generator(mask_in_guidance=False)
    condition, network = model.condition(prompt=PROMPTS[:2]), model.network
    t = 990
    x = torch.randn(2, *model.data_shape)
    out = model.denoiser(2, prompt=PROMPTS[:2])(x, t)
    null = network.y_embedder.y_embedding.expand(2, -1, -1)
    time, grid = torch.full((2,), float(t)), model.prune.grid_at(t)
    conditional = network(x, time, condition['y'], grid=grid)
    unconditional = network(x, time, null, grid=grid)
    expected = model.guidance.combine(conditional, unconditional, network.in_channels)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    masked = generator().denoiser(2, prompt=PROMPTS[:2])(x, t)
    assert (out - masked).abs().max() > 1e-3
    assert condition['mask'].sum(1).tolist() == [3, 10]


def test_samples_depend_on_seed_and_prompt_alone():
    model = generator()
    seeds = torch.tensor([5, 6, 7, 8])
    together = model.predict(seeds, prompt=PROMPTS)
    alone = model.predict(seeds[2:3], prompt=PROMPTS[2:3])
    difference = together[2].image.int() - alone[0].image.int()
    assert difference.abs().max() <= 1  # the last bit of fp32 may round another way
    assert [result.prompt for result in together] == PROMPTS
    other = model.predict(seeds[2:3], prompt=['nine'])
    assert (together[2].image.int() - other[0].image.int()).abs().max() > 1


def test_features_and_prompts_train_alike():
    model = generator()
    inputs = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(3))
    by_prompt = model(mode='loss', inputs=inputs, prompt=PROMPTS)
    y, mask = model.text_encoder.encode(PROMPTS)
    by_feature = model(mode='loss', inputs=inputs, y=y, mask=mask)
    assert by_prompt['loss'].item() == by_feature['loss'].item()
    all_valid = model(mode='loss', inputs=inputs, y=y)
    assert all_valid['loss'].item() != by_feature['loss'].item()


def test_copies_share_the_encoder():
    model = generator()
    assert copy.deepcopy(model).text_encoder is model.text_encoder
    assert not [name for name in model.state_dict() if 'encoder' in name]


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match='16 channels|32 channels'):
        generator(text_encoder=dict(type='HashTextEncoder', channels=32, max_length=12))
    with pytest.raises(ValueError, match='up to 13 tokens'):
        generator(text_encoder=dict(type='HashTextEncoder', channels=16, max_length=13))
    with pytest.raises(ValueError, match='set model.text_encoder'):
        generator(text_encoder=None).condition(prompt=['a'])
    with pytest.raises(ValueError, match='no caption'):
        generator().condition()
    with pytest.raises(ValueError, match=r'\(4, 12, 20\).*expected \(B, L, 16\)'):
        generator().condition(y=torch.zeros(4, 12, 20))
    with pytest.raises(FileNotFoundError, match='null_caption'):
        generator(null_caption='/nowhere/null_caption.npz')


def test_null_caption_file(tmp_path):
    from mmsparsedit.datasets.caption_features import write_null_caption

    encoder = HashTextEncoder(16, 12)
    write_null_caption(tmp_path / 'null_caption.npz', encoder)
    model = generator(null_caption=str(tmp_path / 'null_caption.npz'))
    y, mask = encoder.encode([''])
    assert mask.sum() == 1
    expected = y[0, :1].expand(12, -1)
    torch.testing.assert_close(model.network.y_embedder.y_embedding, expected, rtol=0, atol=0)


def test_size_of_the_image_is_told_to_a_micro_conditioned_network():
    network = dict(NETWORK, input_size=(8, 12), pe_base_size=4, micro_condition=True)
    prune = dict(type='TimestepPruneScheduler', grids=[(3, 4)], token_grid=(4, 6))
    model = generator(network=network, prune=prune)
    condition = model.condition(prompt=PROMPTS[:2])
    assert condition['img_hw'].tolist() == [[64.0, 96.0]] * 2
    torch.testing.assert_close(condition['aspect_ratio'], torch.full((2, 1), 64 / 96))
    assert model.predict(torch.tensor([1, 2]), prompt=PROMPTS[:2])[0].image.shape == (2, 8, 12)


def test_hash_encoder_is_deterministic_and_knows_places():
    first, mask = HashTextEncoder(16, 12).encode(['a b', 'b a', 'A,  b!', ' '.join('x' * 300)])
    again, _ = HashTextEncoder(16, 12).encode(['a b', 'b a', 'A,  b!', ' '.join('x' * 300)])
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    torch.testing.assert_close(first[0], first[2], rtol=0, atol=0)
    assert (first[0, :2] - first[1, :2]).abs().max() > 0.1
    assert mask.sum(1).tolist() == [3, 3, 3, 12]


@pytest.fixture(scope='module')
def small_t5(tmp_path_factory):
    """A pipeline folder with a T5 encoder of width 16, random weights, and a tokenizer."""
    transformers = pytest.importorskip('transformers')
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp('pipeline')
    words = ['<pad>', '</s>', '<unk>', 'a', 'cat', 'dog', 'red']
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, '<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        '$A </s>', special_tokens=[('</s>', 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token='<pad>', eos_token='</s>', unk_token='<unk>'
    ).save_pretrained(folder / 'tokenizer')
    config = transformers.T5Config(
        vocab_size=7, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2
    )
    torch.manual_seed(0)
    transformers.T5EncoderModel(config).save_pretrained(folder / 'text_encoder')
    return folder


def test_t5_features(small_t5):
    encoder = T5TextEncoder(str(small_t5), max_length=6, dtype='float32', batch_size=2)
    assert encoder.channels == 16
    encoder.check()
    y, mask = encoder.encode(['A red  CAT', '', 'a dog a dog a dog a dog'])
    assert y.shape == (3, 6, 16) and y.dtype == torch.float32
    assert mask.sum(1).tolist() == [4, 1, 6]
    tokenizer, model = encoder._load()
    ids = torch.tensor([[3, 6, 4, 1]])
    assert tokenizer('a red cat').input_ids == ids[0].tolist()
    with torch.no_grad():
        alone = model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(y[0, :4], alone[0], rtol=0, atol=1e-5)  # padding reads nothing
    half = T5TextEncoder(str(small_t5), max_length=6).encode(['a cat'])[0]
    assert half.dtype == torch.float32 and half.isfinite().all()
    assert encoder.digest() != T5TextEncoder(str(small_t5), max_length=5).digest()


def test_missing_t5_fails_at_once(tmp_path, monkeypatch):
    def refuse(*args):
        raise AssertionError('a hub was asked')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    for path in ('/nowhere/t5', './t5', str(tmp_path / 'absent'), str(tmp_path)):
        with pytest.raises(FileNotFoundError, match='T5TextEncoder'):
            T5TextEncoder(path)
    encoder = T5TextEncoder('some-owner/not-on-this-machine')
    assert encoder.channels is None
    for use in (encoder.check, lambda: encoder.encode(['a'])):
        with pytest.raises(FileNotFoundError, match='no such model in the local cache'):
            use()
    (tmp_path / 'text_encoder').mkdir()
    (tmp_path / 'text_encoder' / 'config.json').write_text('{"d_model": 16}')
    with pytest.raises(ValueError, match='holds no tokenizer'):
        T5TextEncoder(str(tmp_path)).encode(['a'])


@pytest.mark.parametrize(
    'caption,cleaned',
    [
        ('A man riding a horse.', 'a man riding a horse.'),
        ('The image shows a <person> &amp; 2 dogs', 'the image shows a person & 2 dogs'),
        ('see https://a.b/c.jpg or www.d.ef now', 'see or now'),
        ('“Red-rose” — cut', 'red-rose" - cut'),
        ('<b>bold</b> text, 1920x1080', 'bold text'),
        ('IMG_2020_03_04_a.jpg', ''),
        ('', ''),
    ],
)
def test_cleaning(caption, cleaned):
    assert clean_caption(caption) == cleaned
    assert clean_caption(cleaned) == cleaned


def test_null_caption_survives_np_savez(tmp_path):
    path = tmp_path / 'null.npz'
    np.savez(path, caption_feature=np.ones((1, 4, 20)), attention_mask=np.ones((1, 4)))
    with pytest.raises(ValueError, match=r'expected \(L, 16\)'):
        generator(null_caption=str(path))
