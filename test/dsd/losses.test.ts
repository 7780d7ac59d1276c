/**
 * Every loss of every paradigm against an independent program in float64, and the table of gradients in ARCHITECTURE.md: which loss reaches
 * which latent and which parameter. Moving any stop-gradient changes one of these derivatives, or makes one appear or vanish.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { type LossName, losses } from '../../src/dsd/objective.js';
import { type DType, grad, scope, type Tensor } from '../../src/torch/index.js';
import { assertClose, Fixture, LOSS_CASES, relativeError, stepInput, toyModel } from './fixtures.js';

interface Variant {
  readonly compute?: DType;
  /** The squared error in the place of the absolute one. */
  readonly smooth?: boolean;
  readonly gradientIntoInput?: number;
}

function run(name: string, dtype: DType, { compute = dtype, smooth = false, ...over }: Variant = {}) {
  const { config: usual, latentNorm } = LOSS_CASES[name] as (typeof LOSS_CASES)[string];
  const asked = { ...usual, ...over };
  const { reconstruction, squared } = asked.weights;
  const config = smooth ? { ...asked, weights: { ...asked.weights, reconstruction: 0, squared: squared + reconstruction } } : asked;
  const input = stepInput(config.passes, dtype);
  const online = toyModel('online', { dtype, latentNorm });
  const teacher = toyModel('target', { dtype, latentNorm });
  const networks = { online: online.in(compute), target: teacher.in(compute), frozen: teacher.in(compute), center: input.center };
  const out = losses(networks, input, input.draws, config);
  return { out, weights: online.weights, config };
}

interface Denoised {
  readonly loss: Tensor;
  readonly gradients: readonly (Tensor | null)[];
  readonly names: readonly string[];
}

/** Gradient of the oracle for a parameter: whole, or as its product with a probe vector; undefined where it is zero or absent. */
function compareGradients(
  fixture: Fixture,
  weights: ReadonlyMap<string, Tensor>,
  gradients: readonly (Tensor | null)[],
  tolerance: number,
  floorShare: number,
): void {
  const reach = fixture.values('reach.total');
  const whole = Math.sqrt(reach.reduce((sum, norm) => sum + Math.max(0, norm) ** 2, 0));
  [...weights.keys()].forEach((name, i) => {
    const gradient = gradients[i]?.to({ dtype: 'float64' });
    const norm = reach[fixture.parameters.indexOf(name)] as number;
    const floor = floorShare * whole;
    if (fixture.has(`grad.${name}`)) {
      assert.ok(gradient, `${name} has no gradient`);
      assertClose(gradient, fixture.values(`grad.${name}`), tolerance, name, floor);
    } else if (fixture.has(`sketch.${name}`)) {
      assert.ok(gradient, `${name} has no gradient`);
      const columns = gradient.shape.at(-1) as number;
      const sketch = gradient.reshape(-1, columns).matmul(fixture.tensor(`probe.${columns}`));
      assertClose(sketch, fixture.values(`sketch.${name}`), tolerance, name, Math.max(norm, floor));
    } else {
      const found = gradient ? Number(gradient.norm().item()) : 0;
      assert.ok(found <= 1e-12 * whole, `${name} should have no gradient, found norm ${found}`);
    }
  });
}

describe('losses against the oracle', () => {
  for (const name of Object.keys(LOSS_CASES)) {
    for (const [dtype, tolerance, floor] of [
      ['float64', 1e-9, 1e-6],
      ['float32', 1e-5, 0.02],
    ] as const) {
      test(`${name}, ${dtype}: terms, latents, gradient`, () =>
        scope(() => {
          const fixture = new Fixture(`loss-${name}`);
          const { out, weights } = run(name, dtype);
          for (const path of fixture.names('loss.')) {
            const term = path.slice('loss.'.length);
            const value = term === 'total' ? out.total : out.terms[term as LossName];
            assert.ok(value, `no term ${term}`);
            assertClose(value, fixture.values(path), tolerance, term);
          }
          assert.equal(Object.keys(out.terms).length, fixture.names('loss.').length - 1);
          // An autoencoder has no target: what would be one is nobody's business.
          for (const z of ['z1', 'zc', ...(out.terms.denoise ? (['z2'] as const) : [])] as const)
            assertClose(out.latents[z] as Tensor, fixture.values(`value.${z}`), tolerance, z);
          compareGradients(fixture, weights.tensors, grad([out.total], weights.list(), undefined, { allowUnused: true }), tolerance, floor);
        }));
    }

    // The gradient of L1 is a sign: one of the toy's 2,304 that rounding flips is 4 %, and says nothing. The squared error stands for it.
    test(`${name}, bfloat16: the whole gradient`, () =>
      scope(() => {
        const exact = run(name, 'float64', { smooth: true });
        const rough = run(name, 'float32', { compute: 'bfloat16', smooth: true });
        const gradients = [exact, rough].map(({ out, weights }) =>
          grad([out.total], weights.list(), undefined, { allowUnused: true }).map(
            (g, i) => g?.to({ dtype: 'float64' }) ?? (weights.list()[i] as Tensor).detach().mul(0).to({ dtype: 'float64' }),
          ),
        );
        const flat = gradients.map((list) => list.flatMap((g) => [...(g.toArray() as Float64Array)]));
        const error = relativeError(flat[1] as number[], flat[0] as number[]);
        assert.ok(error > 1e-4, `relative error ${error}: this did not compute in bfloat16`);
        assert.ok(error < 3e-2, `relative error ${error}`);
      }));
  }
});

test('a share of the gradient into the input: the loss as ever, and of its gradient the encoder gets that share, all others the whole', () =>
  scope(() => {
    const at = (gradientIntoInput: number): Denoised => {
      const { out, weights } = run('dsd', 'float64', { gradientIntoInput });
      const loss = out.terms.denoise as Tensor;
      return { loss, gradients: grad([loss], weights.list(), undefined, { allowUnused: true }), names: [...weights.tensors.keys()] };
    };
    const [whole, some, none] = [at(1), at(0.25), at(0)];
    let [only, both] = [0, 0];
    for (const [i, name] of whole.names.entries()) {
      const [full, part, cut] = [whole, some, none].map(({ gradients }) => gradients[i]?.flatten());
      if (!full || !part || !cut) {
        assert.deepEqual([part, cut], [undefined, undefined], name);
        continue;
      }
      assertClose(part, cut.add(full.sub(cut).mul(0.25)).toArray() as Float64Array, 1e-9, name);
      if (Number(full.norm().item()) === 0) continue;
      if (Number(cut.norm().item()) === 0) only++;
      else if (relativeError(full.toArray() as Float64Array, cut.toArray() as Float64Array) > 1e-3) both++;
    }
    assertClose(some.loss, whole.loss.toArray() as Float64Array, 1e-12, 'loss');
    assert.ok(only > 0 && both > 0, `${only} parameters that only the encoder reads, ${both} that all roles do`);
  }));

/** ARCHITECTURE.md's table: rows of case, loss, then x or . for each column. */
function reachTable(): { columns: string[]; rows: Map<string, string[]> } {
  const lines = readFileSync(join(import.meta.dirname, '../../../ARCHITECTURE.md'), 'utf8').split('\n');
  const cells = (line: string) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
  const at = lines.findIndex((line) => line.startsWith('| case | loss |'));
  assert.ok(at >= 0, 'ARCHITECTURE.md has lost its table of gradients');
  const rows = new Map<string, string[]>();
  for (const line of lines.slice(at + 2)) {
    if (!line.startsWith('|')) break;
    const [name, loss, ...marks] = cells(line);
    rows.set(`${name} ${loss}`, marks);
  }
  return { columns: cells(lines[at] as string).slice(2), rows };
}

describe('where each loss reaches', () => {
  const { columns, rows } = reachTable();
  const seen = new Set<string>();
  /** Checks one cell of the table. */
  const cell = (name: string, term: string, column: string, reaches: boolean): void => {
    seen.add(`${name} ${term}`);
    const mark = rows.get(`${name} ${term}`)?.[columns.indexOf(column)];
    assert.equal(
      reaches ? 'x' : '.',
      mark,
      `${name}: ${term} ${reaches ? 'reaches' : 'does not reach'} ${column}, the table says '${mark}'`,
    );
  };

  for (const name of Object.keys(LOSS_CASES)) {
    test(`${name}: latents and parameters`, () =>
      scope(() => {
        const fixture = new Fixture(`loss-${name}`);
        const { out, weights } = run(name, 'float64');
        for (const term of Object.keys(out.terms) as LossName[]) {
          const value = out.terms[term] as Tensor;
          for (const use of ['z1', 'zc', 'z2'] as const) {
            const latent = out.latents[use];
            const gradient = latent.requiresGrad
              ? grad([value], [latent], undefined, { allowUnused: true, retainGraph: true })[0]
              : undefined;
            const found = (gradient?.toArray() ?? []) as Float64Array;
            const path = `tap.${term}.${use}`;
            const reaches = found.some((v) => v !== 0);
            cell(name, term, use, reaches);
            assert.equal(reaches, fixture.has(path), `${term} ${reaches ? 'reaches' : 'does not reach'} ${use}`);
            if (reaches) assert.ok(relativeError(found, fixture.values(path)) <= 1e-9, `${term} at ${use}`);
          }
          const reach = fixture.values(`reach.${term}`);
          const gradients = grad([value], weights.list(), undefined, { allowUnused: true, retainGraph: true });
          [...weights.tensors.keys()].forEach((parameter, i) => {
            const norm = gradients[i] ? Number((gradients[i] as Tensor).norm().item()) : 0;
            const expected = Math.max(0, reach[fixture.parameters.indexOf(parameter)] as number);
            const column = columns.indexOf(parameter.replace(/\.(weight|bias)$/, ''));
            if (column >= 0) cell(name, term, columns[column] as string, norm > 0);
            assert.ok(
              Math.abs(norm - expected) <= 1e-9 * Math.max(expected, 1e-3),
              `${term} reaches ${parameter} with norm ${norm}, expected ${expected}`,
            );
          });
        }
      }));
  }

  test('the table has no row that was not checked', () => assert.deepEqual([...rows.keys()].sort(), [...seen].sort()));
});
