/**
 * The paper's figure 3: with f = z_t + (1 - t) v, predicting the velocity and predicting the clean latent are the same up to w_t = 1 / (1 - t)^2,
 * exactly so only where the input's z is the target's.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { losses } from '../../src/dsd/objective.js';
import { noGrad, scope, type Tensor, where } from '../../src/torch/index.js';
import { assertClose, LOSS_CASES, relativeError, stepInput, toyModel } from './fixtures.js';

/** Everything of a run, redone by hand from what it drew: the objective's loss, and both sides of the identity by sample. v is what the network gives. */
function redone(name: 'naive' | 'velocity-ema' | 'clean-sg', { weighting = 0, mean = 0 } = {}) {
  const { config: usual, latentNorm } = LOSS_CASES[name] as (typeof LOSS_CASES)[string];
  const config = { ...usual, time: { ...usual.time, mean, weighting } };
  const input = stepInput(1);
  const online = toyModel('online', { latentNorm, trained: false });
  const out = losses({ online, target: toyModel('target', { latentNorm }), center: input.center }, input, input.draws, config);
  const { zc, z2 } = out.latents;
  const u = input.draws.time.add(mean).sigmoid(); // (B, 1)
  const t = u.mul(0.71).div(u.mul(-0.29).add(1)).view(-1, 1, 1);
  const eps = input.draws.noise.squeeze(1);
  const rest = t.neg().add(1);
  const zt = t.mul(zc).add(rest.mul(eps));
  const asked = where(input.draws.drop.squeeze(1).lt(0.1), 4, input.y).to({ dtype: 'int64' });
  const v = online.denoise(zt, t.view(-1), asked).prediction;
  return { loss: out.terms.denoise as Tensor, zc, z2, eps, t, rest, v, f: zt.add(rest.mul(v)) };
}

describe('velocity and clean prediction', () => {
  test('share z: the velocity loss is w_t times the clean loss', () =>
    noGrad(() =>
      scope(() => {
        const { loss, z2, rest, f } = redone('naive');
        const weighted = f.sub(z2).square().mean([1, 2]).div(rest.view(-1).square()).mean();
        assertClose(weighted, loss.toArray() as Float64Array, 1e-12, 'weighted clean loss');
      }),
    ));

  test('do not share z (EMA target, mask): f - z2 = (1 - t)(v - (z2 - eps)) + t (zc - z2)', () =>
    noGrad(() =>
      scope(() => {
        const { loss, zc, z2, eps, t, rest, v, f } = redone('velocity-ema');
        const error = v.sub(z2.sub(eps));
        assertClose(error.square().mean(), loss.toArray() as Float64Array, 1e-12, 'velocity loss');
        const extra = t.mul(zc.sub(z2));
        assertClose(f.sub(z2), rest.mul(error).add(extra).toArray() as Float64Array, 1e-12, 'clean error');
        const without = relativeError(f.sub(z2).toArray() as Float64Array, rest.mul(error).toArray() as Float64Array);
        assert.ok(without > 1e-3, `the extra term is not negligible here, found ${without}`);
      }),
    ));

  test('weighted by (1 - t)^-2, the clean loss is the error of the velocity that the sampler makes of it, up to 1 - t = 0.05', () =>
    noGrad(() =>
      scope(() => {
        for (const mean of [0, 5]) {
          const { loss, z2, rest, v: clean } = redone('clean-sg', { weighting: 2, mean });
          const least = rest.clamp(0.05);
          assert.equal(least.sub(rest).abs().max().item() !== 0, mean !== 0, 'late times are bounded, usual ones are not');
          assertClose(clean.sub(z2).div(least).square().mean(), loss.toArray() as Float64Array, 1e-12, `mean ${mean}`);
        }
      }),
    ));
});
