"""The residual networks for small images of He et al. 2016, section 4.2: ResNet-20, ResNet-110 and their kin."""

import json
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from mtkd.errors import KitError
from mtkd.store.files import tensors_load, tensors_save


class Block(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to what came in.

    Where the block halves the image and widens the channels, what came in is made to fit by the shortcut: "A" takes
    every second pixel and fills the new channels with zeros (no parameters; what the paper uses for small images),
    "B" is a 1x1 convolution with batch normalisation.
    """

    def __init__(self, incoming: int, outgoing: int, stride: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, outgoing, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outgoing)
        self.conv2 = nn.Conv2d(outgoing, outgoing, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outgoing)
        self.stride, self.extra = stride, outgoing - incoming
        self.shortcut = None
        if shortcut == "B" and (stride != 1 or self.extra):
            self.shortcut = nn.Sequential(
                nn.Conv2d(incoming, outgoing, 1, stride=stride, bias=False), nn.BatchNorm2d(outgoing)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)))  # [B, outgoing, H/stride, W/stride]
        out = self.norm2(self.conv2(out))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.stride != 1 or self.extra:
            before = self.extra // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before))
        return F.relu(out + x)


class CifarResNet(nn.Module):
    """ResNet-(6n+2) for small images: one 3x3 convolution, three stages of n blocks, average pooling, one linear layer.

    The stages are `width`, 2 `width` and 4 `width` channels wide, the second and third halve the image. Any image
    size works: 32x32x3 as in the paper, 8x8x1 digits.

    Args:
        depth: number of weighted layers, 6n+2 (20, 32, 44, 56, 110 in the paper).
        width: channels of the first stage (16 in the paper).
        channels: channels of the image.
        classes: number of logits.
        shortcut: "A" (no parameters, the paper's choice for CIFAR-10) or "B" (1x1 convolution).

    Raises:
        KitError: depth is not of the form 6n+2, or another value cannot be used.

    Parameters for 3 channels and 10 classes: depth 20 has 269,722 (the paper prints 0.27 M), depth 110 has 1,727,962
    (1.7 M); with shortcut "B" both have 2,752 more.

    >>> import torch
    >>> CifarResNet(depth=8, width=4, channels=1)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(self, depth: int = 20, width: int = 16, channels: int = 3, classes: int = 10, shortcut: str = "A"):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            lower = max(8, (depth - 2) // 6 * 6 + 2)
            raise KitError(f"A ResNet for small images has 6n+2 layers, and {depth} is not of that form: try {lower}.")
        if shortcut not in ("A", "B"):
            raise KitError(f"The shortcut of a ResNet is 'A' or 'B', not {shortcut!r}.")
        for name, value in (("width", width), ("channels", channels), ("classes", classes)):
            if value < 1:
                raise KitError(f"A ResNet's {name} must be at least 1, and it is {value}.")
        self.config = {
            "architecture": "cifar_resnet", "depth": depth, "width": width, "channels": channels, "classes": classes,
            "shortcut": shortcut,
        }  # fmt: skip
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks, incoming = [], width
        for stage in range(3):
            for position in range((depth - 2) // 6):
                outgoing = width * 2**stage
                blocks.append(Block(incoming, outgoing, 2 if stage and not position else 1, shortcut))
                incoming = outgoing
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(incoming, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of float images [B, channels, H, W], already normalised."""
        if images.dim() != 4 or images.shape[1] != self.config["channels"]:
            raise KitError(
                f"This ResNet takes images of shape [batch, {self.config['channels']}, height, width], "
                f"and was given {list(images.shape)}."
            )
        x = F.relu(self.norm(self.conv(images)))  # [B, width, H, W]
        x = self.blocks(x)  # [B, 4 width, H/4, W/4]
        return self.classifier(x.mean(dim=(2, 3)))  # the mean keeps any memory format, a flattening view would not

    def save(self, folder: str | Path) -> Path:
        """Write config.json and model.safetensors into the folder (made if missing) and return it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors_save(folder / "model.safetensors", self.state_dict())
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "CifarResNet":
        """Read what `save` wrote, in eval mode on the CPU.

        Raises:
            KitError: the folder holds no ResNet of this kind, or its weights do not fit its config.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise KitError(f"No readable config.json in {folder}: is it the folder of a saved ResNet?") from error
        if not isinstance(config, dict) or config.get("architecture") != "cifar_resnet":
            raise KitError(f"{folder} holds a model of another kind, not a ResNet saved by this kit.")
        try:
            model = cls(**{name: value for name, value in config.items() if name != "architecture"})
            model.load_state_dict(tensors_load(folder / "model.safetensors"))
        except Exception as error:  # a missing or damaged file, weights of another shape, a config with other fields
            reason = str(error).splitlines()[0].removesuffix(".")
            raise KitError(f"The ResNet in {folder} cannot be loaded ({reason}).") from error
        return model.eval()
