"""What users write, run as it stands: the README's code block and those of the model cards.

`python usage.py BASE LARGE KINETICS SSV2 FOLDER` takes the four published models by hub id or folder, and a
folder to save to. The frames are random, as on the model cards.
"""

import sys

import jax
import numpy as np

base, large, kinetics, ssv2, folder = sys.argv[1:]

# The surface in one block.
from videomae_jax import (  # noqa: E402
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoMAEModel,
)

processor = VideoMAEImageProcessor.from_pretrained(base)
model, params = VideoMAEForPreTraining.from_pretrained(base)
pixel_values = processor(list(np.random.randn(16, 3, 224, 224)), return_tensors="np").pixel_values  # noqa: NPY002
bool_masked_pos = np.zeros((1, model.config.num_tokens), bool)
bool_masked_pos[:, : int(0.9 * model.config.num_tokens)] = True
outputs = model.apply({"params": params}, pixel_values, bool_masked_pos)
model.save_pretrained(folder, params)
again, params_again = VideoMAEForPreTraining.from_pretrained(folder)
assert isinstance(model.config, VideoMAEConfig)
assert outputs.logits.shape == (1, bool_masked_pos.sum(), model.config.values_per_tubelet)
assert again.apply({"params": params_again}, pixel_values, bool_masked_pos).loss == outputs.loss
print("base", float(outputs.loss))

# Model card of videomae-base and videomae-large: the loss of pre-training.
num_frames = 16
video = list(np.random.randn(16, 3, 224, 224))  # noqa: NPY002
processor = VideoMAEImageProcessor.from_pretrained(large)
model, params = VideoMAEForPreTraining.from_pretrained(large)
pixel_values = processor(video, return_tensors="np").pixel_values
num_patches_per_frame = (model.config.image_size // model.config.patch_size) ** 2
seq_length = (num_frames // model.config.tubelet_size) * num_patches_per_frame
hidden = np.random.default_rng(0).permutation(seq_length)[: seq_length // 2]
bool_masked_pos = np.isin(np.arange(seq_length), hidden)[None]
outputs = model.apply({"params": params}, pixel_values, bool_masked_pos=bool_masked_pos)
loss = outputs.loss
assert np.isfinite(loss)
print("large", float(loss))

# Model card of videomae-base-finetuned-kinetics: classification.
processor = VideoMAEImageProcessor.from_pretrained(kinetics)
model, params = VideoMAEForVideoClassification.from_pretrained(kinetics)
inputs = processor(video, return_tensors="np")
outputs = jax.jit(model.apply)({"params": params}, **inputs)
logits = outputs.logits
predicted_class_idx = logits.argmax(-1).item()
print("Predicted class:", model.config.id2label[predicted_class_idx])
assert logits.shape == (1, model.config.num_labels)
assert model.config.label2id[model.config.id2label[predicted_class_idx]] == predicted_class_idx

# Model card of videomae-base-short-ssv2: the older name of the processor.
from videomae_jax import VideoMAEFeatureExtractor  # noqa: E402

feature_extractor = VideoMAEFeatureExtractor.from_pretrained(ssv2)
model, params = VideoMAEForPreTraining.from_pretrained(ssv2)
pixel_values = feature_extractor(video, return_tensors="np").pixel_values
loss = model.apply({"params": params}, pixel_values, bool_masked_pos).loss
assert np.isfinite(loss)
print("ssv2", float(loss))

# The bare encoder, with every layer.
model, params = VideoMAEModel.from_pretrained(base)
outputs = model.apply({"params": params}, pixel_values, output_hidden_states=True)
assert outputs.last_hidden_state.shape == (1, seq_length, model.config.hidden_size)
assert len(outputs.hidden_states) == model.config.num_hidden_layers + 1
print("done")
