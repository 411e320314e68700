"""One description of what a class takes, for its constructor and for options files."""

import inspect

import pytest
import torch

from lorair_arch.archs.degradation_router_arch import DegradationRouter
from lorair_arch.archs.lorair_arch import LoRAIR
from lorair_arch.errors import OptionsError
from lorair_arch.options.keys import OWN_MODELS, options
from lorair_arch.schema import Section, checked, checks_options, integer, takes, text
from tests import tiny
from tests.miniature import stage

PLACES = {'network_g': LoRAIR, 'network_router': DegradationRouter}
WRONG = {
    'network_g': {'width': 20, 'enc_blk_nums': 'x', 'middle_blk_num': -1, 'lora': {'rnak': 2, 'num_experts': 0}},
    'network_router': {'clip_model': 3, 'num_degradations': 0, 'clip_grid': None, 'views': 'x'},
}


@pytest.mark.parametrize('key', PLACES)
def test_constructor_and_file_say_the_same(key):
    opt, said = stage('finetune'), []
    opt[key] |= WRONG[key]
    options(OWN_MODELS[2], True).check(opt, '', lambda place, what: said.append(f'{place}: {what}'))
    with pytest.raises(OptionsError) as caught:
        PLACES[key](**{name: value for name, value in opt[key].items() if name != 'type'})
    assert sorted(str(caught.value).splitlines()) == sorted(line.removeprefix(f'{key}.') for line in said)
    assert len(said) >= 4


def test_tuples_and_whole_floats_are_taken():
    torch.manual_seed(0)
    given = {**tiny.PLAIN, 'enc_blk_nums': (1,), 'middle_blk_num': 1.0, 'dec_blk_nums': (1.0,), 'prior_dim': 8.0}
    net = LoRAIR(**given, lora={'rank': 2.0, 'num_experts': 3.0, 'top_k': 2.0}, local_pool_size=(16.0, 16))
    torch.manual_seed(0)
    same = LoRAIR(**tiny.LORA, local_pool_size=[16, 16])
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), same.state_dict().values(), strict=True))
    assert net.plain_settings == same.plain_settings


def test_arguments_by_place_and_signatures_are_as_without_a_check():
    assert list(inspect.signature(LoRAIR).parameters) == list(LoRAIR.OPTIONS.keys)
    assert list(inspect.signature(DegradationRouter).parameters) == list(DegradationRouter.OPTIONS.keys)
    assert LoRAIR(16, [1], 1, [1], 8).prior_dim == 8
    with pytest.raises(TypeError, match="unexpected keyword argument 'widht'"):
        LoRAIR(**tiny.PLAIN, widht=16)


class Base:
    OPTIONS = Section(keys={'size': integer(1, required=True)})

    @checks_options(OPTIONS)
    def __init__(self, size):
        self.size = size


class Heir(Base):
    """Has a constructor of its own."""

    def __init__(self, size, name='x'):
        super().__init__(size)


class Child(Base):
    """Has that of its parent."""


def test_classes_built_on_another_one():
    assert takes(Child) is Base.OPTIONS
    assert list(takes(Heir).keys) == ['size', 'name']
    assert Heir(2.0, 'y').size == Child(2).size == 2
    with pytest.raises(OptionsError, match='^size: found 0, expected a whole number, at least 1$'):
        Heir(0)


def test_what_is_checked_is_not_changed():
    spec = Section(keys={'a': integer(), 'b': Section(keys={'c': text()})})
    given = {'a': 1.0, 'b': {'c': 'x'}}
    found = checked(spec, given)
    assert (found, type(found['a'])) == ({'a': 1, 'b': {'c': 'x'}}, int)
    found['b']['c'] = 'y'
    assert (given['b'], type(given['a'])) == ({'c': 'x'}, float)
