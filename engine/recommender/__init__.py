"""What recommends: fields and their encoding, the model that scores items, and the policy that draws a slate."""
