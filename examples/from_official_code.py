"""A call of the official code, and the same call here: python examples/from_official_code.py

docs/moving.md lists every argument. Official names are accepted beside this package's.
"""

from vidlada_hf import EMBEDDED_CHECKPOINT, VidLaDAForConditionalGeneration, VidLaDAProcessor

CLIP = EMBEDDED_CHECKPOINT / "demo" / "clip.mp4"


def main(question: str = "Describe the yellow cross.", base: str = str(EMBEDDED_CHECKPOINT)):
    # tokenizer, model, image_processor, max_length = load_pretrained_model(path, None, "llava_llada", ...)
    model = VidLaDAForConditionalGeneration.from_pretrained(base, dtype="auto")  # a converted folder, or this package's
    processor = VidLaDAProcessor.from_pretrained(base)  # tokenizer, frames and prompt in one

    # frames, time, _ = load_video(path, 16); process_images(...); conv_templates["llava_llada"]; tokenizer_image_token
    asked = [{"type": "video", "video": str(CLIP)}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": asked}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"num_frames": 16},
    ).to(model.device, model.dtype)

    official = model.generate(
        **inputs,
        steps=16,
        gen_length=32,
        block_length=16,
        cfg=0.0,
        stopping_criteria=["<|eot_id|>"],
        tokenizer=processor.tokenizer,
    )
    ours = model.generate(
        **inputs,
        max_denoising_steps=16,
        max_new_tokens=32,
        block_length=16,
        cfg_scale=0.0,
        stop_strings=["<|eot_id|>"],
        tokenizer=processor.tokenizer,
    )

    # tokenizer.batch_decode(output): the official code returns the answer alone, transformers the prompt too
    prompt = inputs["input_ids"].shape[1]
    answers = [processor.decode(output[0, prompt:], skip_special_tokens=True).strip() for output in (official, ours)]
    print(f"official names: {answers[0]}\nour names:      {answers[1]}")
    return answers


if __name__ == "__main__":
    main()
