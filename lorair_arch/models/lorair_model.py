"""Second and third stage: pre-training of the restorer and fine-tuning with low-rank experts (LoRA-IR, section 3)."""

from __future__ import annotations

import hashlib

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.utils import tensor2img
from torch import Tensor, nn

from lorair_arch.data.images.photo import Photo
from lorair_arch.data.images.writing import write_photo
from lorair_arch.errors import DataError, OptionsError
from lorair_arch.metrics.measuring import mean, measure
from lorair_arch.metrics.statistics import LABEL, interval, shown
from lorair_arch.models.stage import StageModel
from lorair_arch.models.validation import Summary, name_of, place_of, table


class RestorationModel(StageModel):
    """Trains or tests a `LoRAIR` network guided by a frozen `DegradationRouter`.

    Any data set serves that yields `lq` and `gt`: prior and logits are computed on the device from `lq`, unless the
    batch brings them (`prior` [B, P], `logits` [B, E]). With `train.prior: cached` training batches do; the router is
    then built for the validation of images that it has not seen yet, and dropped after it.
    """

    role, kind = 'g', 'restorer'

    def __init__(self, opt: dict) -> None:
        super().__init__(opt)
        self.net_g = self.net
        self.cached = self.is_train and opt['train'].get('prior') == 'cached'
        self.net_router = self.build_router() if 'network_router' in opt and not self.cached else None
        self.seen: dict[bytes, tuple[Tensor, Tensor]] = {}  # logits and priors of validation images, on the CPU

    def build_router(self) -> nn.Module:
        """Builds the frozen router and loads its weights."""
        path = self.weights_of('router')
        router = build_network(self.opt['network_router'])
        if path:
            self.load_network(router, path, param_key=self.opt['path'].get('param_key_router', 'params'))
        # Bare in distributed runs too: frozen, it has nothing to share.
        return router.to(self.device).eval().requires_grad_(False)

    def weights_of(self, label: str) -> str | None:
        """Gives the file of weights of the router or of the restorer; no training builds on random ones."""
        path = self.opt['path'].get(f'pretrain_network_{label}')
        if self.is_train and not path:
            raise OptionsError(f'path.pretrain_network_{label}: missing, expected a file of trained weights')
        return path

    def init_training_settings(self) -> None:
        self.loss = build_loss(self.opt['train']['pixel_opt']).to(self.device)
        super().init_training_settings()

    def take_batch(self, data: dict) -> None:
        """Takes a batch: `lq`, and if given `gt` [B, 3, H, W] in [0, 1]; `prior` and `logits` spare the router."""
        self.lq = data['lq'].to(self.device, non_blocking=True)
        self.gt = data['gt'].to(self.device, non_blocking=True) if 'gt' in data else None
        self.prior, self.logits = (data[k].to(self.device) if k in data else None for k in ('prior', 'logits'))

    @torch.no_grad()
    def guide(self) -> None:
        """Computes prior [B, P] and logits [B, E] of the batch at hand, unless they are there."""
        if self.prior is not None:
            return
        if self.net_router is None:
            if 'network_router' not in self.opt:
                raise DataError('The batch brings no prior, and the options have no network_router to compute it.')
            self.net_router = self.build_router()
        self.logits, self.prior = (t.float() for t in self.net_router(self.lq))

    def guide_again(self, lq: Tensor) -> None:
        """Guides by what the router, which is frozen, said of the same pixels in an earlier validation."""
        # By the pixels: a data set may make its images anew. A ViT-L router costs 15 times what the restorer does.
        key = hashlib.sha256(lq.contiguous().cpu().numpy()).digest()
        if key not in self.seen:
            self.guide()
            self.seen[key] = self.logits.cpu(), self.prior.cpu()
        self.logits, self.prior = (t.to(self.device) for t in self.seen[key])

    def compute_losses(self) -> dict[str, Tensor]:
        with self.autocast():
            self.guide()
            self.output = self.net(self.lq, self.prior, self.logits)
        return {'l_pix': self.loss(self.output.float(), self.gt)}

    def test(self) -> None:
        """Restores the batch at hand into `output`, in float32."""
        self.guide()
        with self.evaluated() as net:
            self.output = net(self.lq, self.prior, self.logits)

    def validation(self, *args, **kwargs) -> None:
        super().validation(*args, **kwargs)
        if self.cached:
            self.net_router = None  # validation images are known now: its memory is the training's

    def evaluate(self, data: dict, dataset: str, current_iter: int | str, save_img: bool) -> dict:
        self.take_batch(data)
        if self.is_train and self.prior is None:
            self.guide_again(data['lq'])
        self.test()
        degradation = data.get('degradation', [None])[0]
        name = name_of(data, next(opt for opt in self.opt['datasets'].values() if opt['name'] == dataset))
        record = {'image': data['lq_path'][0], 'name': name, 'degradation': degradation}
        names = self.opt.get('degradations')
        if degradation and names and self.logits is not None:
            record['router_accuracy'] = float(names[self.logits.argmax().item()] == degradation)
        # 8 bits, as in the file that is saved: the published numbers are measured on files
        truth = None if self.gt is None else tensor2img(self.gt)
        values, left_out = measure(self.opt['val'].get('metrics'), tensor2img(self.output), truth)
        record |= values | ({'left_out': left_out} if left_out else {})
        if self.gt is not None and self.gt.shape == self.output.shape:
            self._keep_picture(degradation or name)
        if save_img:
            write_photo(place_of(self.opt, dataset, name, current_iter), Photo(tensor2img(self.output, rgb2bgr=False)))
        return record

    def _keep_picture(self, name: str) -> None:
        """Keeps input | restored | ground truth for TensorBoard, one for each degradation."""
        name = name.encode('utf-8', 'backslashreplace').decode()  # a file's name may be of any bytes, a tag may not
        if name not in self.pictures and len(self.pictures) < self.opt['val'].get('num_tb_images', 8):
            images = (self.lq[0], self.output[0], self.gt[0])
            self.pictures[name] = torch.cat([image.float().cpu().clamp(0, 1) for image in images], dim=2)

    def summarize(self, records: list[dict]) -> Summary:
        metrics = [m for m in ('router_accuracy',) if any(m in r for r in records)]
        metrics += self.opt['val'].get('metrics') or {}
        names = list(dict.fromkeys(r['degradation'] for r in records if r['degradation']))
        groups = {name: [r for r in records if r['degradation'] == name] for name in names} or {'': records}
        values = {name: {m: [r[m] for r in group if m in r] for m in metrics} for name, group in groups.items()}
        means = {name: {m: mean(of[m]) for m in metrics} for name, of in values.items()}
        # every degradation counts the same, however many images it has
        means[''] = {m: mean([of[m] for of in means.values()]) for m in metrics}
        intervals = {}
        if not self.is_train:
            intervals = {name: {m: interval(of[m]) for m in metrics} for name, of in values.items()}
            intervals[''] = {m: interval(*(of[m] for of in values.values() if of[m])) for m in metrics}
        rows = []
        for name, of in means.items():
            rows.append([name or 'mean', *of.values()])
            if intervals:
                rows.append([LABEL, *map(shown, intervals[name].values())])
        return Summary(means, intervals, table(['', *metrics], rows))


class LoRAIRPretrainModel(RestorationModel):
    """Pre-trains the restorer, without experts, on all degradations together (section 3.2)."""


class LoRAIRFinetuneModel(RestorationModel):
    """Fine-tunes a pre-trained restorer with a mixture of low-rank experts (section 3.3).

    `path.pretrain_network_g` is the pre-trained restorer (with or without experts); `path.pretrain_network_experts` a
    file of experts to load on top. `train.trainable` says what learns: `lora`, the experts, as the paper words it;
    `lora_bias`, also the biases; `all`, everything, as the official release does.
    """

    _ENDINGS = {'lora': ('lora_A', 'lora_B'), 'lora_bias': ('lora_A', 'lora_B', '.bias'), 'all': ('',)}

    def build(self) -> nn.Module:
        path = self.opt['path']
        net = build_network(self.opt['network_g'])
        param_key = path.get('param_key_g', 'params')
        if self.weights_of('g'):
            # a test of a restorer without its experts would measure something else without a word
            missing = self._ENDINGS['lora'] if self.is_train or path.get('pretrain_network_experts') else ()
            self.load_network(
                net, path['pretrain_network_g'], param_key=param_key, missing=missing, begins=self.is_train
            )
        if path.get('pretrain_network_experts'):
            # The base is loaded: it may be missing in the file, and its biases may be there (`lora_bias`).
            base = tuple(key for key in net.state_dict() if not key.endswith(self._ENDINGS['lora']))
            self.load_network(net, path['pretrain_network_experts'], param_key=param_key, missing=base)
        for name, param in net.named_parameters():
            # Before `model_to_device`: DistributedDataParallel looks at it when it is built.
            param.requires_grad_(self.is_train and self._is_trainable(name))
        return net

    def _is_trainable(self, name: str) -> bool:
        return name.endswith(self._ENDINGS[self.opt['train'].get('trainable', 'lora')])

    def saved_keys(self, state_dict: dict[str, Tensor]) -> list[str]:
        # What is frozen is in the file of pre-training: a checkpoint of experts is a fraction of the network's size.
        return [key for key in state_dict if self._is_trainable(key)]

    @property
    def kind(self) -> str:
        return 'restorer' if self.opt['train'].get('trainable', 'lora') == 'all' else 'experts'
