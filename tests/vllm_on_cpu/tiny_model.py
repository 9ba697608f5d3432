"""Make a language model that needs no download: a random Llama over printable ASCII, one character a token.

`python tiny_model.py FOLDER`, in the environment that has vLLM. Equal seeds make equal weights, and greedy decoding
never ends the text: it talks nonsense until it may not any longer.
"""

import string
import sys

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<unknown>", "<begin>", "<end>"]
CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " "
CHAT_TEMPLATE = (
    "<begin>{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }} {% endfor %}[assistant] "
)


def make_tokenizer(longest: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer that makes each character one token."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=SPECIAL[0],
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        chat_template=CHAT_TEMPLATE,
        model_max_length=longest,
    )


def make_model(longest: int) -> LlamaForCausalLM:
    """Return a model of two layers whose most likely token is never a special one."""
    torch.manual_seed(7748)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(SPECIAL) + len(CHARACTERS),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,  # the smallest that vLLM's attention for the CPU takes
            max_position_embeddings=longest,
            bos_token_id=1,
            eos_token_id=2,
            dtype="float32",
        )
    )
    with torch.no_grad():
        # Larger weights set the scores far apart, so that rounding does not decide which token is the most likely.
        model.lm_head.weight.mul_(20)
        # A special token's score is the mean of the others' scores, so another token is always above it.
        model.lm_head.weight[: len(SPECIAL)] = model.lm_head.weight[len(SPECIAL) :].mean(dim=0)
    return model


def main() -> None:
    """Write the model and its tokenizer into the folder that the command line names."""
    folder = sys.argv[1]
    longest = 512
    make_tokenizer(longest).save_pretrained(folder)
    make_model(longest).save_pretrained(folder)


if __name__ == "__main__":
    main()
