"""From uint8 images to float views, batched, on the batch's device."""
