"""Hub through diffusers' own mixin, without a network."""

import json
import shutil
from types import SimpleNamespace

import torch
from diffusers.utils import hub_utils
from huggingface_hub import ModelCard
from tiny_pipelines import sparse_dit

from mmsparsedit.diffusers import SparseDiTTransformer2DModel

COMMIT = 40 * '0'


@torch.no_grad()
def test_pushed_and_loaded_by_repository_id(tmp_path, monkeypatch):
    """What would be uploaded is what a download would leave in the cache of the Hub."""
    snapshot = tmp_path / 'models--me--sparse/snapshots' / COMMIT
    calls = []

    def create_repo(repo_id, **options):
        calls.append((repo_id, options['private']))
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(repo_id, folder_path, commit_message, **options):
        calls.append((repo_id, commit_message))
        shutil.copytree(folder_path, snapshot)
        return f'https://hub/{repo_id}'

    monkeypatch.setattr(hub_utils, 'create_repo', create_repo)
    monkeypatch.setattr(hub_utils, 'upload_folder', upload_folder)
    monkeypatch.setattr(
        hub_utils, 'load_or_create_model_card', lambda *_, **__: ModelCard('---\n---\nsparse')
    )
    model = sparse_dit()
    assert model.push_to_hub('me/sparse', private=True) == 'https://hub/me/sparse'
    assert calls == [('me/sparse', True), ('me/sparse', 'Upload model')]
    assert sorted(path.name for path in snapshot.iterdir()) == [
        'README.md',
        'config.json',
        'diffusion_pytorch_model.safetensors',
    ]
    written = json.loads((snapshot / 'config.json').read_text())
    assert written['_class_name'] == 'SparseDiTTransformer2DModel'
    assert written['prune'] == dict(r_min=0.4, r_max=0.9)
    refs = tmp_path / 'models--me--sparse/refs'
    refs.mkdir()
    (refs / 'main').write_text(COMMIT)
    loaded = SparseDiTTransformer2DModel.from_pretrained(
        'me/sparse', cache_dir=tmp_path, local_files_only=True
    )
    inputs = torch.randn(1, 4, 16, 16), torch.tensor([700]), torch.tensor([3])
    assert torch.equal(loaded(*inputs).sample, model(*inputs).sample)
