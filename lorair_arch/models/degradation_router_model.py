"""First stage: the degradation router, trained as a classifier of degradations (LoRA-IR, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lorair_arch.errors import DataError
from lorair_arch.metrics.measuring import mean, unfit
from lorair_arch.metrics.statistics import LABEL, interval, shown
from lorair_arch.models.stage import StageModel
from lorair_arch.models.validation import Summary, table


class DegradationRouterModel(StageModel):
    """Trains a `DegradationRouter` with cross entropy; validates top-1 accuracy and the confusion matrix.

    Any data set serves that yields `lq` and `degradation`, a name in the list `degradations` of the options.
    """

    role = kind = 'router'

    def take_batch(self, data: dict) -> None:
        """Takes a batch: `lq` [B, 3, H, W], or a list of whole images [3, H, W], and the names `degradation`."""
        lq = data['lq']
        if isinstance(lq, list):  # images of different sizes have views of one size
            views = self.get_bare_model(self.net).views
            parts = [views(image[None].to(self.device, non_blocking=True)) for image in lq]
            if len({part.shape for part in parts}) > 1:
                raise DataError(
                    'The images of a batch have different numbers of windows: with network_router.views: windows give '
                    'datasets.train.gt_size a size, or batch_size_per_gpu: 1.'
                )
            self.lq = torch.cat(parts)
        else:
            self.lq = lq.to(self.device, non_blocking=True)
        self.labels = torch.tensor([self._label(name) for name in data.get('degradation', ())], device=self.device)
        if len(self.labels) != len(self.lq):
            raise DataError('The data set does not say how its images are degraded: training a router needs it.')

    def _label(self, name: str) -> int:
        names = self.opt['degradations']
        if name not in names:
            raise DataError(f'The data set yields the degradation {name!r}, not in degradations: [{", ".join(names)}].')
        return names.index(name)

    def compute_losses(self) -> dict[str, Tensor]:
        with self.autocast():
            logits, _ = self.net(self.lq)
        # In float32, whatever the router ran in: bf16 has 8 bits.
        return {'l_ce': F.cross_entropy(logits.float(), self.labels)}

    def evaluate(self, data: dict, dataset: str, current_iter: int | str, save_img: bool) -> dict:
        self.take_batch(data)
        with self.evaluated() as net:
            logits, _ = net(self.lq)
        record = {
            'image': data['lq_path'][0],
            'degradation': data['degradation'][0],
            'predicted': self.opt['degradations'][logits.argmax().item()],
        }
        loss = F.cross_entropy(logits.float(), self.labels).item()
        reason = unfit(loss)
        return record | ({'left_out': {'l_ce': reason}} if reason else {'l_ce': loss})

    def summarize(self, records: list[dict]) -> Summary:
        names = self.opt['degradations']
        means, rows = {}, []
        for name in names:
            predicted = [r['predicted'] for r in records if r['degradation'] == name]
            if predicted:
                means[name] = {'accuracy': predicted.count(name) / len(predicted)}
                rows.append([name, *(str(predicted.count(other)) for other in names), means[name]['accuracy']])
        right = [r['predicted'] == r['degradation'] for r in records]
        losses = [r['l_ce'] for r in records if 'l_ce' in r]
        means[''] = {'accuracy': mean(right), 'l_ce': mean(losses)}
        intervals, words = {}, ''
        if not self.is_train:
            intervals = {'': {'accuracy': interval(right), 'l_ce': interval(losses)}}
            words = f' ({LABEL} {shown(intervals[""]["accuracy"])})'
        lines = table(['truth \\ predicted', *names, 'accuracy'], rows)
        lines += f'\n  accuracy {means[""]["accuracy"]:.4f}{words} of {len(records)} images'
        return Summary(means, intervals, lines)
