/** Trunk, roles and samplers against an independent program in float64 (test/oracle/oracle.py). */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { key } from '../../src/core/random.js';
import { Sampler } from '../../src/dsd/generate.js';
import { Model } from '../../src/dsd/model.js';
import { timeGrid } from '../../src/dsd/sampler.js';
import { countParameters, type ModelConfig, parameters, SIZES } from '../../src/dsd/sizes.js';
import { block, blockWeights, rotary, type TrunkOutput, timeFeatures, trunk } from '../../src/dsd/vit.js';
import { cudaAvailable, type Device, type DType, grad, noGrad, randn, scope, settled, type Tensor } from '../../src/torch/index.js';
import { assertClose, Fixture, relativeError, toyConfig, toyModel } from './fixtures.js';

const TYPES = [
  ['float64', 1e-9],
  ['float32', 1e-5],
] as const;

/** Compares an output and the gradient of its projection with regard to inputs and parameters. */
function compare(fixture: Fixture, prefix: string, output: Tensor, inputs: Record<string, Tensor>, model: Model, tolerance: number): void {
  const own = (name: string) => (fixture.has(`${prefix}.${name}`) ? `${prefix}.${name}` : name);
  assertClose(output, fixture.values(`${prefix}.output`), tolerance, `${prefix} output`);
  const names = [...model.weights.tensors.keys()];
  const all = [...Object.values(inputs), ...model.weights.list()];
  const projected = output.mul(fixture.tensor(own('projection'), output.dtype)).sum();
  const gradients = grad([projected], all, undefined, { allowUnused: true });
  Object.keys(inputs).forEach((name, i) => {
    assertClose(gradients[i] as Tensor, fixture.values(`${prefix}.input_grad.${name}`), tolerance, `${prefix} gradient at ${name}`);
  });
  const reach = fixture.values(`${prefix}.reach`);
  names.forEach((name, i) => {
    const gradient = gradients[Object.keys(inputs).length + i];
    const norm = reach[fixture.parameters.indexOf(name)] as number;
    if (fixture.has(`${prefix}.grad.${name}`))
      assertClose(gradient as Tensor, fixture.values(`${prefix}.grad.${name}`), tolerance, `${prefix} ${name}`, 1e-2);
    else if (fixture.has(`${prefix}.sketch.${name}`)) {
      const columns = (gradient as Tensor).shape.at(-1) as number;
      const sketch = (gradient as Tensor)
        .to({ dtype: 'float64' })
        .reshape(-1, columns)
        .matmul(fixture.tensor(`probe.${columns}`));
      assertClose(sketch, fixture.values(`${prefix}.sketch.${name}`), tolerance, `${prefix} ${name}`, Math.max(norm, 1e-2));
    } else assert.ok(!gradient || Number(gradient.abs().max().item()) === 0, `${prefix} should not reach ${name}`);
  });
}

const leaf = (fixture: Fixture, name: string, dtype: DType) => fixture.tensor(name, dtype).requiresGrad_(true);

describe('trunk', () => {
  for (const [dtype, tolerance] of TYPES) {
    test(`time features, ${dtype}`, () =>
      scope(() => {
        const fixture = new Fixture('trunk');
        const t = leaf(fixture, 'input.t', dtype);
        // sin(1000 t) amplifies t's own rounding a thousandfold: in float32 the features are good to 1e-4.
        compare(fixture, 'time', timeFeatures(t), { t }, toyModel('online', { dtype }), dtype === 'float32' ? 2e-4 : tolerance);
      }));

    test(`one block, ${dtype}`, () =>
      scope(() => {
        const fixture = new Fixture('trunk');
        const model = toyModel('online', { dtype });
        const h = leaf(fixture, 'input.h', dtype);
        const m = leaf(fixture, 'block.input.m', dtype);
        const turn = rotary(toyConfig(), h);
        const w = blockWeights(model.weights.at('trunk'), 1);
        const out = settled(block(w, 2, { x: h }, m.add(w.table), turn));
        compare(fixture, 'block', out, { h, m }, model, tolerance);
      }));

    for (const role of ['encode', 'denoise', 'decode'] as const) {
      test(`whole, in the role ${role}, ${dtype}`, () =>
        scope(() => {
          const fixture = new Fixture('trunk');
          const model = toyModel('online', { dtype });
          const [h, t] = [leaf(fixture, 'input.h', dtype), leaf(fixture, 'input.t', dtype)];
          const input = { role, h, t, y: fixture.tensor('input.y', 'int64'), tapAfter: 2 };
          const [out] = trunk(model.weights, toyConfig(), [input], rotary(toyConfig(), h)) as [TrunkOutput];
          // In float32 the time features bound what the whole can reach: see above.
          compare(fixture, role, out.tokens, dtype === 'float32' ? { h } : { h, t }, model, dtype === 'float32' ? 1e-4 : tolerance);
          if (role === 'denoise')
            assertClose(out.tap as Tensor, fixture.values('denoise.after.2'), dtype === 'float32' ? 1e-4 : tolerance, 'tap');
        }));
    }
  }

  test('one block in bfloat16 is within 2e-2', () =>
    scope(() => {
      const fixture = new Fixture('trunk');
      const model = toyModel('online', { dtype: 'float32' }).in('bfloat16');
      const h = leaf(fixture, 'input.h', 'float32');
      const m = fixture.tensor('block.input.m', 'float32');
      const w = blockWeights(model.weights.at('trunk'), 1);
      const out = settled(block(w, 2, { x: h }, m.add(w.table), rotary(toyConfig(), h)));
      const value = out.detach().to({ dtype: 'float64' }).toArray() as Float64Array;
      const error = relativeError(value, fixture.values('block.output'));
      assert.ok(error > 1e-5 && error < 2e-2, `relative error ${error}`);
      const [gradient] = grad([out.mul(fixture.tensor('projection', 'float32')).sum()], [h]);
      const gradientError = relativeError(
        (gradient as Tensor).to({ dtype: 'float64' }).toArray() as Float64Array,
        fixture.values('block.input_grad.h'),
      );
      assert.ok(gradientError < 2e-2, `relative error of the gradient ${gradientError}`);
    }));

  // On a GPU the second is large enough for products that add to the stream, which leave it without a branch.
  for (const [device, dtype, batch] of [
    ['cpu', 'float32', 2],
    ['cuda', 'bfloat16', 64],
  ] as const satisfies readonly (readonly [Device, DType, number])[]) {
    test(`a tap is the same without gradient, ${device}`, { skip: device === 'cuda' && !cudaAvailable() ? 'no CUDA device' : false }, () =>
      scope(() => {
        const shape = { image: 64, patch: 4, channels: 3, width: 256, depth: 3, heads: 4, hidden: 512, latent: 8 } as const;
        const config: ModelConfig = { ...toyConfig(), ...shape };
        const model = Model.init(config, 1, { device });
        for (const [name, weight] of model.weights.tensors) {
          // At zero, as they begin, one gate is as good as another.
          if (/modulation|table/.test(name)) noGrad(() => weight.copy_(randn(key(2, name), 0, weight.shape, { device }).mul(0.2)));
        }
        const x = randn(key(1, 'x'), 0, [batch, 64, 64, 3], { device });
        const of = () => {
          const { tokens, tap } = model.in(dtype).encode(x, { tapAfter: 2 });
          return [tokens, tap as Tensor].map((part) => part.detach().to({ dtype: 'float64', device: 'cpu' }).toArray() as Float64Array);
        };
        const [recorded, unrecorded] = [of(), noGrad(of)];
        recorded.forEach((values, i) => {
          const error = relativeError(unrecorded[i] as Float64Array, values);
          assert.ok(error < (dtype === 'float32' ? 1e-6 : 2e-2), `${i === 0 ? 'tokens' : 'tap'}: relative error ${error}`);
        });
      }),
    );
  }
});

describe('roles', () => {
  for (const [dtype, tolerance] of TYPES) {
    for (const latentNorm of [true, false]) {
      for (const masked of [false, true]) {
        const prefix = `encode.${masked ? 'masked' : 'plain'}.${latentNorm ? 'norm' : 'raw'}`;
        test(`${prefix}, ${dtype}`, () =>
          scope(() => {
            const fixture = new Fixture('roles');
            const model = toyModel('online', { dtype, latentNorm });
            const x = leaf(fixture, 'input.x', dtype);
            const mask = fixture.tensor('mask', 'bool');
            const out = model.encode(x, masked ? { mask } : {});
            compare(fixture, prefix, out.z, { x }, model, tolerance);
            if (latentNorm) assertClose(out.tokens, fixture.values(`encode.${masked ? 'masked' : 'plain'}.tokens`), tolerance, 'tokens');
          }));
      }
    }

    test(`denoise, ${dtype}`, () =>
      scope(() => {
        const fixture = new Fixture('roles');
        const model = toyModel('online', { dtype });
        const [z, t] = [leaf(fixture, 'denoise.input.z', dtype), leaf(fixture, 'denoise.input.t', dtype)];
        const { prediction } = model.denoise(z, t, fixture.tensor('denoise.input.y', 'int64'));
        compare(fixture, 'denoise', prediction, dtype === 'float32' ? { z } : { z, t }, model, dtype === 'float32' ? 1e-4 : tolerance);
      }));

    test(`decode, ${dtype}`, () =>
      scope(() => {
        const fixture = new Fixture('roles');
        const model = toyModel('online', { dtype });
        const z = leaf(fixture, 'decode.input.z', dtype);
        compare(fixture, 'decode', model.decode(z), { z }, model, tolerance);
      }));
  }
});

describe('samplers', () => {
  const guidance = {
    guided: { guidance: 1.5, interval: [0.1, 1] },
    inner: { guidance: 2, interval: [0.3, 0.7] },
    plain: { guidance: 1, interval: [0, 1] },
  } as const;
  for (const solver of ['euler', 'heun'] as const) {
    for (const target of ['clean', 'velocity', 'preconditioned'] as const) {
      for (const [name, guide] of Object.entries(guidance)) {
        test(`${solver}, ${target}, ${name}`, () =>
          scope(() => {
            const fixture = new Fixture('samplers');
            const model = toyModel('online', { trained: false });
            const steps = solver === 'euler' ? 20 : 10;
            const options = { solver, target, steps, shift: 0.71, ...guide };
            const z = noGrad(() =>
              new Sampler(model, model).latents({ noise: fixture.tensor('input.z'), labels: fixture.tensor('input.y', 'int64'), options }),
            );
            assertClose(z, fixture.values(`${solver}.${target}.${name}.z`), 1e-9, 'latent');
            if (fixture.has(`${solver}.${target}.${name}.decoded`))
              assertClose(model.decode(z), fixture.values(`${solver}.${target}.${name}.decoded`), 1e-9, 'picture');
          }));
      }
    }
  }

  test('time grid', () => {
    const fixture = new Fixture('samplers');
    assert.ok(relativeError(timeGrid(20, 0.71), fixture.values('grid.euler')) < 1e-14);
    assert.ok(relativeError(timeGrid(10, 0.71), fixture.values('grid.heun')) < 1e-14);
  });
});

describe('sizes', () => {
  const imagenet = (name: 'S' | 'M' | 'B'): ModelConfig => ({
    ...SIZES[name],
    image: 256,
    channels: 3,
    patch: 16,
    latent: 32,
    classes: 1000,
    latentNorm: true,
    prototypes: 4096,
  });
  for (const [name, millions] of [
    ['S', 42],
    ['M', 118],
    ['B', 205],
  ] as const) {
    test(`${name} is within 1 % of ${millions}M`, () => {
      const { model } = countParameters(imagenet(name));
      assert.ok(Math.abs(model / 1e6 / millions - 1) < 0.01, `${model}`);
    });
  }

  test("the oracle's parameter names are ours", () => {
    assert.deepEqual([...parameters(toyConfig()).keys()].sort(), [...new Fixture('loss-dsd').parameters].sort());
  });
});
