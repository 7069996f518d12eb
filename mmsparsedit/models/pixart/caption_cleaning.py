"""Cleaning of captions before T5, in the manner of PixArt's data (DeepFloyd IF's rules).

For a plain sentence the result is its lower case. What web captions carry beside sentences is
removed: links, markup, entities, handles, addresses, file names, sizes, stock phrases. Own rules
for the same purposes; a reference's caption with such debris may differ in the debris.
"""

import html
import re
import unicodedata
import urllib.parse

_QUOTES = dict.fromkeys(map(ord, '`´“”„«»"'), '"') | dict.fromkeys(map(ord, '‘’‚‹›'), "'")
_DASHES = dict.fromkeys(range(0x2010, 0x2016), '-') | {0x2212: '-', 0x2043: '-', 0xFE58: '-'}

_REMOVED = [
    re.compile(pattern)
    for pattern in (
        r'\b(?:https?|ftp)://\S+',
        r'\bwww\.\S+',
        r'\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+',  # mail
        r'(?<!\w)@\w+',  # handle
        r'<[^<>]{1,500}>',  # markup; <person>, a mask of data sets, is kept below
        r'\b\d{1,3}(?:\.\d{1,3}){3}\b',  # network address
        r'#\d{1,5}\b',
        r'\b\d{6,}\b',  # identifier
        r'\S+\.(?:png|jpe?g|gif|bmp|webp|tiff?|pdf|mp4|eps|html?)\b',
        r'\b(?:worldwide )?(?:free )?shipping\b',
        r'\b(?:free )?download(?: free)?\b',
        r'\bclick\b.{0,40}?\b(?:for|on)\b\s*\w*',
        r'\bpage \d+\b',
        r'\b\d+\s*[x×]\s*\d+\b',  # size in pixels
    )
]
_CJK = re.compile(
    r'[\u3040-\u30ff\u31c0-\u31ef\u31f0-\u31ff\u3200-\u33ff\u3400-\u4dbf\u4e00-\u9fff]'
)


def clean_caption(caption: str) -> str:
    """Lower-case text without the debris of web pages; cleaning twice changes nothing more."""
    text = caption
    while (cleaned := _clean_once(text)) != text:
        text = cleaned
    return text


def _clean_once(text: str) -> str:
    text = html.unescape(urllib.parse.unquote_plus(text))
    text = unicodedata.normalize('NFC', text).strip().lower().replace('<person>', 'person')
    text = text.translate(_QUOTES).translate(_DASHES)
    for pattern in _REMOVED:
        text = pattern.sub(' ', text)
    text = _CJK.sub('', text)
    if len(re.findall(r'[-_]', text)) > 3:  # a file name, not a sentence
        text = re.sub(r'[-_]', ' ', text)
    text = re.sub(r'([.,!?;:])\1+', r'\1', text)  # repeated marks
    text = re.sub(r'[\\|/*~^=<>{}\[\]]+', ' ', text)
    text = re.sub(r'\(\s*\)|"\s*"', ' ', text)  # emptied brackets and quotes
    text = re.sub(r'\s+([.,!?;:])', r'\1', text)
    text = re.sub(r'\s+', ' ', text)
    return text.strip(' \'"_-+,;:')
