/** LPIPS against an independent program in float64 (test/oracle/oracle.py), with a tiny VGG16 of random weights. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lpips } from '../../src/dsd/perceptual.js';
import { Weights } from '../../src/nn/weights.js';
import { grad, scope, type Tensor } from '../../src/torch/index.js';
import { assertClose, Fixture } from './fixtures.js';

const load = (fixture: Fixture): Weights =>
  new Weights(new Map(fixture.names('weights.').map((name): [string, Tensor] => [name.slice('weights.'.length), fixture.tensor(name)])));

test('LPIPS: value and gradient', () =>
  scope(() => {
    const fixture = new Fixture('lpips');
    const distance = lpips(load(fixture));
    const x = fixture.tensor('x').requiresGrad_(true); // (B, 3, H, W)
    const last = (picture: Tensor) => picture.permute(0, 2, 3, 1);
    const value = distance(last(x), last(fixture.tensor('y')));
    const expected = fixture.values('value');
    const batch = expected.length;
    assertClose(value, [expected.reduce((sum, v) => sum + v, 0) / batch], 1e-9, 'mean over the batch');
    const [gradient] = grad([value.mul(batch)], [x]);
    assertClose(gradient as Tensor, fixture.values('grad.x'), 1e-9, 'gradient');
  }));

test('a picture is at no distance from itself; weights that lack a tensor are refused by its name', () =>
  scope(() => {
    const fixture = new Fixture('lpips');
    const weights = load(fixture);
    const x = fixture.tensor('x').permute(0, 2, 3, 1);
    assert.equal(Number(lpips(weights)(x, x).item()), 0);
    const lacking = new Weights(new Map([...weights.tensors].filter(([name]) => name !== 'features.10.bias')));
    assert.throws(() => lpips(lacking), /features\.10\.bias/);
  }));
