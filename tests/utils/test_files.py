import hashlib
import os
import re
import stat

import pytest

from mmsparsedit.utils.files import atomic_write, check_place, clear_parts, sha256_of


def test_a_file_appears_whole_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / 'deep' / 'result.json'
    with atomic_write(path) as beside:
        beside.write_bytes(b'half')
        assert beside.parent == path.parent and not path.exists()
        assert beside.name.startswith('.result.json.') and beside.name.endswith('.part')
        with open(beside, 'ab') as file:
            file.write(b' and half')
    assert path.read_bytes() == b'half and half'
    assert os.listdir(path.parent) == ['result.json']


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_an_error_keeps_the_old_file(tmp_path, error):
    path = tmp_path / 'index.json'
    path.write_text('old')
    with pytest.raises(error), atomic_write(path) as beside:
        beside.write_text('new')
        raise error
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['index.json']


def test_a_block_that_wrote_nothing_is_an_error(tmp_path):
    with pytest.raises(OSError, match='nothing was written'), atomic_write(tmp_path / 'a'):
        pass
    assert os.listdir(tmp_path) == []


def test_file_and_folder_reach_the_disk_in_order(tmp_path, monkeypatch):
    done = []
    replace = os.replace
    monkeypatch.setattr(
        os,
        'fsync',
        lambda file: done.append('folder' if stat.S_ISDIR(os.fstat(file).st_mode) else 'file'),
    )
    monkeypatch.setattr(os, 'replace', lambda a, b: (done.append('rename'), replace(a, b)))
    with atomic_write(tmp_path / 'a') as beside:
        beside.write_text('x')
    assert done == ['file', 'rename', 'folder']


def test_two_writers_do_not_meet(tmp_path):
    with atomic_write(tmp_path / 'a') as one, atomic_write(tmp_path / 'a') as other:
        assert one != other
        one.write_text('one')
        other.write_text('other')
    assert (tmp_path / 'a').read_text() == 'one'  # the outer block ends last


def test_parts_of_killed_writers_are_told_from_those_of_living_ones(tmp_path):
    left = tmp_path / f'.a.{"0f" * 16}.part'
    left.write_text('half')
    (tmp_path / '.notes.part').write_text('mine')
    with atomic_write(tmp_path / 'a') as beside:
        beside.write_text('whole')
        assert clear_parts(tmp_path) == [left]
    assert (tmp_path / 'a').read_text() == 'whole'
    assert sorted(os.listdir(tmp_path)) == ['.notes.part', 'a']


def test_a_pipe_is_written_to_and_stays(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    end = os.open(tmp_path / 'pipe', os.O_RDWR)
    with atomic_write(tmp_path / 'pipe') as beside:
        beside.write_bytes(b'figures')
    assert os.read(end, 99) == b'figures' and stat.S_ISFIFO(os.stat(tmp_path / 'pipe').st_mode)
    os.close(end)


def test_a_folder_that_is_a_file_is_called_so(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(NotADirectoryError, match='file'), atomic_write(tmp_path / 'file/a'):
        pass


def test_sha256_reads_in_pieces(tmp_path):
    data = os.urandom(2**20 + 17)
    (tmp_path / 'a').write_bytes(data)
    assert sha256_of(tmp_path / 'a') == hashlib.sha256(data).hexdigest()
    (tmp_path / 'empty').touch()
    assert sha256_of(tmp_path / 'empty') == hashlib.sha256().hexdigest()


def test_a_place_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / 'file').touch()
    for path in ('new.json', 'no/such/folder/new.json', 'file'):
        check_place(tmp_path / path)
    for path, error, named in (
        ('.', IsADirectoryError, tmp_path),
        ('file/x.json', NotADirectoryError, tmp_path / 'file'),
        ('file/deep/x.json', NotADirectoryError, tmp_path / 'file'),
    ):
        with pytest.raises(error, match=re.escape(str(named))):
            check_place(tmp_path / path)
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_place_of_others_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, mode: path != tmp_path)  # root may do all
    with pytest.raises(PermissionError, match='x.json'):
        check_place(tmp_path / 'x.json')
