#!/usr/bin/env python3
"""Makes tests/data/text: small tokenizers of each family's pipeline, strings, and what the real
libraries make of them.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    tools/make_tokenizer_goldens.py [OUT]

OUT/NAME.json          a tokenizer.json, trained here on the strings below
OUT/spm.json           tokens, scores and types of a sentencepiece BPE model, as GGUF holds them
OUT/strings.jsonl      one JSON string a line
OUT/NAME.crc32         for each string a little-endian CRC-32 of what `tokenizers` (for spm:
                       `sentencepiece`) gives: see golden() below
Everything is deterministic for the versions above.
"""

import collections
import json
import pathlib
import random
import struct
import sys
import tempfile
import unicodedata
import zlib

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+"
          r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+"
         r"[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# Our own sentences, about one thing, in many scripts.
SENTENCES = """The quick brown fox doesn't jump over the lazy dog, and it's happy that we'll see.
She said: "I'd rather not; they've gone, you're here, I'm late" - and left at 10:45.
El zorro rápido salta sobre el perro perezoso mañana por la mañana.
Der schnelle braune Fuchs springt über den faulen Hund; größer wäre schöner.
Le renard brun rapide saute par-dessus le chien paresseux, n'est-ce pas ?
Быстрая коричневая лиса перепрыгивает через ленивую собаку.
Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.
敏捷的棕色狐狸跳过了懒狗。今天天气很好,我们去公园吧!
素早い茶色の狐がのろまな犬を飛び越える。カタカナも書きます。
빠른 갈색 여우가 게으른 개를 뛰어넘는다.
الثعلب البني السريع يقفز فوق الكلب الكسول.
השועל החום המהיר קופץ מעל הכלב העצלן.
तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है।
দ্রুত বাদামী শিয়াল অলস কুকুরের উপর লাফ দেয়।
விரைவான பழுப்பு நரி சோம்பேறி நாயின் மேல் குதிக்கிறது.
สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ
Con cáo nâu nhanh nhẹn nhảy qua con chó lười biếng.
Szybki brązowy lis przeskakuje nad leniwym psem; zażółć gęślą jaźń.
Hızlı kahverengi tilki tembel köpeğin üzerinden atlar. İstanbul ılık.
Արագ շագանակագույն աղվեսը ցատկում է ծույլ շան վրայով։
სწრაფი ყავისფერი მელა ხტება ზარმაც ძაღლზე.
ፈጣኑ ቡናማ ቀበሮ ሰነፉን ውሻ ዘለለ።
def main(argv):\n    for i in range(10):\n        print(f"{i:03d}", argv[i])\n    return 0
int main(int argc, char** argv) { return argc > 1 ? std::stoi(argv[1]) : 0; }  // 0x1F, 1e-9
SELECT id, name FROM users WHERE age >= 21 AND city = 'Paris' ORDER BY name DESC;
<div class="box"><a href="https://example.com/?q=1&amp;r=2">link</a></div>
{"key": [1, 2.5, -3e8, null, true], "nested": {"a\\\\b": "c\\td"}}
In 1984, 3.14159 of 2,718,281 people paid $12.50 (or 11,99 EUR) at 50% off.""".replace(
    "\\n", "\n").split("\n")

SPACES = [" ", "  ", "    ", "\t", "\n", "\r\n", "\n\n", "\r", "\v", "\f", "\u00a0", "\u1680",
          "\u2002", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\u0085"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷🇯🇵", "1️⃣", "❤️‍🔥", "🧑🏿‍🚀", "☕", "✨", "🤷🏻‍♀️", "🏴󠁧󠁢󠁳󠁣󠁴󠁿"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<|bos|>",
            "<tool>", "[MASK]", "Word", "<|end", "|>", "<|im_start|", "<0x0A>", "▁", "▁▁"]
ODD = ["\x00", "\x01", "\x1a", "\x1f", "\x7f", "\ufeff", "\u200b", "\u200c", "\u200d", "\u2060",
       "\ufffd", "\ufffe", "\ue000", "\U000f0000", "\U0010ffff", "\u180e", "\u00ad", "\u061c"]
CONTRACTIONS = ["'s", "'S", "'t", "'T", "'re", "'RE", "'rE", "'ve", "'VE", "'m", "'M", "'ll", "'LL",
                "'lL", "'d", "'D", "'\u017f", "'x", "'", "''", "’s", "'l", "'r", "'v", "'lll", "'\u212a"]
MARKS = ["\u0301", "\u0323", "\u0308", "\u0327", "\u05b0", "\u0651", "\u093c", "\u0e49", "\u3099"]


def script_letters():
    """Letters and numbers by the first word of their Unicode name, a stand-in for the script."""
    scripts = {}
    for code in range(0x20, 0x32000):
        c = chr(code)
        # Unicode 14 and later additions are classified by library version; keep to stable ones.
        if unicodedata.category(c)[0] not in "LNM" or unicodedata.ucd_3_2_0.category(c) == "Cn":
            continue
        scripts.setdefault(unicodedata.name(c, "?").split()[0], []).append(c)
    return scripts


def make_strings(count):
    rng = random.Random(20240229)
    scripts = script_letters()
    names = sorted(scripts)
    words = [w for s in SENTENCES for w in s.split()]
    symbols = [chr(c) for c in range(0x21, 0x7f) if not chr(c).isalnum()] + list("«»“”…–—€£¥§±×÷°·¿¡√∑≠→")
    numbers = list("0123456789") + list("٣४৫൬๗²³¼½ⅣⅫ①㊿〇零") + ["𝟗", "𐄇"]

    def script_word():
        letters = scripts[rng.choice(names)]
        return "".join(rng.choice(letters) for _ in range(rng.randint(1, 8)))

    def atom():
        kind = rng.randrange(14)
        if kind < 4:
            return rng.choice(words)
        if kind == 4:
            return script_word()
        if kind == 5:
            return "".join(rng.choice(numbers) for _ in range(rng.randint(1, 7)))
        if kind == 6:
            return "".join(rng.choice(symbols) for _ in range(rng.randint(1, 5)))
        if kind == 7:
            return rng.choice(EMOJI)
        if kind == 8:
            return rng.choice(SPECIALS)
        if kind == 9:
            return rng.choice(CONTRACTIONS)
        if kind == 10:
            return rng.choice(ODD)
        if kind == 11:
            return rng.choice("aeionuAEÅcgれカ한ᄒ") + "".join(
                rng.choice(MARKS) for _ in range(rng.randint(1, 4)))
        if kind == 12:
            form = rng.choice(["NFC", "NFD", "NFKC", "NFKD"])
            return unicodedata.normalize(form, rng.choice(words) + "Åﬁ한Ω")
        return rng.choice("aZ0 -\n") * rng.choice([1, 2, 3, 5, 9, 17, 40])

    strings = ["", " ", "  ", "a", "\n", "\x00"] + SENTENCES + SPACES + EMOJI + SPECIALS + ODD
    strings += CONTRACTIONS + [c * 2000 for c in ("a", " ", "\n", "Zq", "é", "한", "1", "-", "\u0301")]
    for name in names:  # every script by itself
        strings += ["".join(rng.choice(scripts[name]) for _ in range(rng.randint(1, 12)))
                    for _ in range(6)]
    strings += ["".join(rng.choice(SPACES) for _ in range(rng.randint(1, 6))) + rng.choice(
        ["", "x", "9", "!"]) for _ in range(400)]
    while len(strings) < count:
        parts = []
        for _ in range(rng.choice([1, 2, 2, 3, 3, 4, 5, 8])):
            parts.append(atom())
            separator = rng.randrange(10)
            if separator < 5:
                parts.append(" ")
            elif separator == 5:
                parts.append(rng.choice(SPACES))
        strings.append("".join(parts))
    return strings


def added(content, special=True, **flags):
    return dict({"content": content, "special": special, "single_word": False, "lstrip": False,
                 "rstrip": False, "normalized": False}, **flags)


def train(corpus, pre_tokenizer, vocab_size, alphabet):
    tokenizer = Tokenizer(models.BPE())
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if alphabet is None:  # the most frequent characters; ties by code point, unlike the trainer's
        counts = collections.Counter(c for s in corpus for c in s.replace(" ", "▁"))
        alphabet = [c for c, _ in sorted(counts.items(), key=lambda p: (-p[1], p[0]))[:160]]
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False,
        limit_alphabet=len(alphabet)))
    return json.loads(tokenizer.to_str())["model"]


def assemble(model, added_tokens, head=(), **parts):
    """A tokenizer.json with the head tokens and then the special ones in front of the vocabulary."""
    front = list(dict.fromkeys(list(head) + [t["content"] for t in added_tokens if t["special"]]))
    order = front + [t for t, _ in sorted(model["vocab"].items(), key=lambda p: p[1])
                     if t not in front]
    order += [t["content"] for t in added_tokens if t["content"] not in order]
    vocab = {t: i for i, t in enumerate(order)}
    for t in added_tokens:
        t["id"] = vocab[t["content"]]
        if not t["special"]:
            del vocab[t["content"]]  # known by being added only
    model["vocab"] = vocab
    result = {"version": "1.0", "truncation": None, "padding": None,
              "added_tokens": sorted(added_tokens, key=lambda t: t["id"]), "normalizer": None,
              "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model}
    result.update({k: v if v is None else json.loads(v.__getstate__()) for k, v in parts.items()})
    return result


def byte_level(**options):
    return pre_tokenizers.ByteLevel(**dict({"add_prefix_space": False, "use_regex": False}, **options))


def families(strings):
    corpus = SENTENCES * 20 + strings[:3000]
    everything = sorted(pre_tokenizers.ByteLevel.alphabet())

    def split(pattern, behavior="isolated", invert=False):
        return pre_tokenizers.Split(pattern, behavior, invert)

    gpt2 = byte_level(use_regex=True)
    yield "gpt2", assemble(train(corpus, gpt2, 900, everything), [added("<|endoftext|>")],
                           pre_tokenizer=gpt2, decoder=decoders.ByteLevel(),
                           post_processor=processors.ByteLevel(trim_offsets=False))

    llama3 = pre_tokenizers.Sequence([split(Regex(LLAMA3)), byte_level()])
    model = train(corpus, llama3, 900, everything)
    # Without some merges, a word that is a token is found only because ignore_merges is set.
    parts = {p for m in model["merges"] for p in m}
    model["merges"] = [m for i, m in enumerate(model["merges"])
                       if i % 3 != 0 or "".join(m) in parts]
    model["ignore_merges"] = True
    tokens = [added("<|bos|>"), added("<|im_start|>"), added("<|im_end|>")]
    yield "llama3", assemble(
        model, tokens, pre_tokenizer=llama3, decoder=decoders.ByteLevel(),
        post_processor=processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing("<|bos|> $A", "<|bos|> $A <|bos|> $B:1",
                                          [("<|bos|>", 0)])]))

    qwen2 = pre_tokenizers.Sequence([split(Regex(QWEN2)), byte_level()])
    yield "qwen2", assemble(
        train(corpus, qwen2, 900, everything),
        [added("<|endoftext|>"), added("<|im_start|>"), added("<|im_end|>"),
         added("<tool>", special=False)],
        normalizer=normalizers.NFC(), pre_tokenizer=qwen2, decoder=decoders.ByteLevel())

    smollm = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), gpt2])
    some = [c for i, c in enumerate(everything) if i % 16 != 5]  # as SmolLM's, it lacks bytes
    yield "smollm", assemble(train(corpus, smollm, 800, some),
                             [added("<|endoftext|>"), added("<|im_start|>"), added("<|im_end|>")],
                             pre_tokenizer=smollm, decoder=decoders.ByteLevel())

    gpt4o = pre_tokenizers.Sequence([split(Regex(GPT4O)), byte_level()])
    yield "gpt4o", assemble(train(corpus, gpt4o, 800, everything), [added("<|endoftext|>")],
                            pre_tokenizer=gpt4o, decoder=decoders.ByteLevel())

    # Sentencepiece-like: blanks as U+2581, characters, byte fallback.
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    pieces = pre_tokenizers.Metaspace("▁", "always", True)
    llama_decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                       decoders.Fuse(), decoders.Strip(" ", 1, 0)])

    def sentencepiece_like(split_words):
        text = corpus if split_words else [s.replace(" ", "▁") for s in SENTENCES * 20]
        model = train(text, pieces if split_words else None, 700, None)
        model.update(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        return model

    def sentencepiece_tokens():
        return [added("<unk>"), added("<s>"), added("</s>")]

    bos = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B:1", [("<s>", 1)])
    head = ["<unk>", "<s>", "</s>"] + byte_tokens
    yield "llama2", assemble(
        sentencepiece_like(True), sentencepiece_tokens(), head,
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"),
                                         normalizers.Replace(" ", "▁")]),
        post_processor=bos, decoder=llama_decoder)
    yield "metaspace", assemble(
        sentencepiece_like(False), sentencepiece_tokens(), head,
        pre_tokenizer=pre_tokenizers.Metaspace("▁", "first", False), post_processor=bos,
        decoder=llama_decoder)

    # What no family above uses: unknown tokens, every split behaviour, flags of added tokens.
    model = train([s.lower() for s in corpus], pieces, 500, None)
    model.update(unk_token="<unk>", fuse_unk=False)
    yield "characters", assemble(
        model,
        [added("<unk>"), added("<s>", lstrip=True), added("</s>", rstrip=True),
         added("[MASK]", lstrip=True, rstrip=True), added("Word", special=False, normalized=True,
                                                            single_word=True)],
        normalizer=normalizers.Sequence([
            normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(),
            normalizers.Replace(Regex(r"\s{2,}"), " ")]),
        pre_tokenizer=pre_tokenizers.Sequence([
            pre_tokenizers.Metaspace("▁", "always", True), pre_tokenizers.Punctuation("contiguous"),
            pre_tokenizers.Digits(False)]),
        post_processor=processors.RobertaProcessing(("</s>", 2), ("<s>", 1)),
        decoder=decoders.Metaspace("▁", "always"))

    mixed = pre_tokenizers.Sequence([
        split("\n", "merged_with_previous"), split(Regex(r"[-/]+"), "merged_with_next"),
        split(Regex(r"\p{Han}+|\p{Greek}"), "contiguous"), split(Regex(r"[,;]"), "removed"),
        split(Regex(r"\S+\s*"), "removed", True), split(Regex(r"\w\b"), "merged_with_previous", True),
        byte_level(add_prefix_space=True, use_regex=True)])
    yield "mixed", assemble(
        train(corpus, mixed, 600, everything), [added("<|endoftext|>"), added("<|im_end|>")],
        normalizer=normalizers.NFD(), pre_tokenizer=mixed, decoder=decoders.ByteLevel())

    words = pre_tokenizers.Whitespace()
    model = train(corpus, words, 500, None)
    model.update(unk_token="<unk>", fuse_unk=True)
    yield "words", assemble(
        model, [added("<unk>"), added("<s>")], normalizer=normalizers.NFKD(), pre_tokenizer=words)


def golden(tokenizer, text):
    """CRC-32 over: ids with special tokens, their two decodings, ids with specials as plain text."""
    tokenizer.encode_special_tokens = False
    ids = tokenizer.encode(text).ids
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    crc = zlib.crc32(struct.pack(f"<{len(ids)}i", *ids))
    crc = zlib.crc32(tokenizer.decode(ids, skip_special_tokens=True).encode(), crc)
    crc = zlib.crc32(tokenizer.decode(ids, skip_special_tokens=False).encode(), crc)
    return zlib.crc32(struct.pack(f"<{len(plain)}i", *plain), crc)


def sentencepiece_goldens(strings, out):
    with tempfile.TemporaryDirectory() as folder:
        corpus = pathlib.Path(folder, "corpus.txt")
        corpus.write_text("\n".join(SENTENCES * 5))
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=f"{folder}/spm", model_type="bpe", vocab_size=900,
            byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True, num_threads=1, minloglevel=2)
        spm = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/spm.model")
    types = [2 if spm.is_unknown(i) else 3 if spm.is_control(i) else 6 if spm.is_byte(i)
             else 1 for i in range(len(spm))]
    (out / "spm.json").write_text(json.dumps({
        "tokens": [spm.id_to_piece(i) for i in range(len(spm))],
        "scores": [spm.get_score(i) for i in range(len(spm))], "types": types},
        ensure_ascii=False, separators=(",", ":")) + "\n")
    crcs = []
    for text in strings:
        ids = spm.encode(text)
        crc = zlib.crc32(struct.pack(f"<{len(ids)}i", *ids))
        crcs.append(zlib.crc32(spm.decode(ids).encode(), crc))
    (out / "spm.crc32").write_bytes(struct.pack(f"<{len(crcs)}I", *crcs))


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data/text")
    out.mkdir(parents=True, exist_ok=True)
    strings = make_strings(10400)
    (out / "strings.jsonl").write_text(
        "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in strings))
    for name, spec in families(strings):
        text = json.dumps(spec, ensure_ascii=False, separators=(",", ":")) + "\n"
        (out / f"{name}.json").write_text(text)
        tokenizer = Tokenizer.from_str(text)
        crcs = [golden(tokenizer, s) for s in strings]
        (out / f"{name}.crc32").write_bytes(struct.pack(f"<{len(crcs)}I", *crcs))
        print(name, len(spec["model"]["vocab"]), "tokens")
    sentencepiece_goldens(strings, out)


if __name__ == "__main__":
    main()
