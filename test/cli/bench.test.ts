/** The parts of `dsd bench` that are measured on any device, on networks of a toy's size. What they print is looked at, not how fast anything is. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { brief, groupOf, showProfile, stepProfile } from '../../src/cli/bench/kernels.js';
import { blockParts, blockProducts, type Shape } from '../../src/cli/bench/parts.js';
import { markdown } from '../../src/cli/bench/report.js';
import { findWork, peakOf } from '../../src/cli/bench/work.js';
import { packageRoot } from '../../src/cli/self.js';
import { countParameters, forwardFlops } from '../../src/dsd/sizes.js';
import { grad, scope, setThreads, type Tensor } from '../../src/torch/index.js';
import { passes } from '../../src/train/schedule.js';
import { dsd, type Ended, makePictures, workplace } from './harness.js';

setThreads(1);
const { folder, remove } = workplace();
before(() => makePictures(join(folder, 'pictures')));
after(remove);

const ok = (ended: Ended): Ended => {
  assert.equal(ended.code, 0, ended.stderr);
  return ended;
};
const json = <T>({ stdout }: Ended): T => JSON.parse(stdout) as T;
const run = (words: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> => dsd(['bench', ...words], { cwd: folder, env });
const TOY = ['--preset', 'toy', '--batch', '4', '--steps', '2', '--quiet'];

/** A program that says it is Python with torch, writes down what it was asked, and answers like bench/peer/dsd_torch.py. */
function fakePython(): string {
  const path = join(folder, 'python');
  const answer = {
    ...{ torch: '9.9.9', batch: 4, milliseconds: 100, least: 90, most: 120, imagesPerSecond: 40, gib: 2, parameters: 1000, first: 7.5 },
  };
  writeFileSync(
    path,
    `#!/bin/sh
if [ "$1" = -c ]; then echo 9.9.9; exit; fi
echo "$@" >> '${join(folder, 'asked')}'
case "$*" in *max-autotune*) echo 'torch.OutOfMemoryError: CUDA out of memory' >&2; exit 1;; *graph*) echo nonsense; exit;; esac
echo warming up
echo '${JSON.stringify(answer)}'
`,
  );
  chmodSync(path, 0o755);
  return path;
}

interface Row {
  readonly recipe: string;
  readonly batch: number;
  readonly passes: number;
  readonly mfu: number | null;
  readonly imagesPerSecond: number;
  readonly backToBack: number;
  readonly first: number | null;
  readonly dataWait: number | null;
  readonly captured: true | string | null;
  readonly loss: number;
  readonly times: { readonly median: number; readonly range: readonly [number, number] };
}

test('train: both recipes, with what their FLOPs are counted from', async () => {
  const found = json<{ rows: Row[]; forwardFlops: number; peak: number }>(ok(await run(['train', ...TOY, '--peak', '0.5', '--json'])));
  assert.deepEqual(
    found.rows.map((row) => [row.recipe, row.batch, row.passes]),
    [
      ['peer', 4, 10],
      ['preset', 4, 11.5],
    ],
  );
  for (const { mfu, imagesPerSecond, passes, times, loss, backToBack, dataWait, captured } of found.rows) {
    assert.ok(Math.abs((mfu as number) / ((imagesPerSecond * passes * found.forwardFlops) / 0.5e12) - 1) < 1e-9);
    assert.ok(Math.abs(imagesPerSecond / (4000 / times.median) - 1) < 1e-9 && backToBack > 0);
    assert.ok(times.range[0] <= times.median && times.median <= times.range[1]);
    assert.ok(Number.isFinite(loss) && loss > 0);
    assert.deepEqual([dataWait, captured], [null, null]);
  }
  assert.ok((found.rows[0]?.first as number) > 0);
  assert.equal(found.rows[1]?.first, null, 'of the first row only');
  const shown = ok(
    await run(['train', ...TOY, '--recipe', 'peer', '--network', 'demo', '--set', 'data.image=32', '--deterministic']),
  ).stdout;
  assert.match(shown, /^demo: 1\.3M parameters \(width 128, depth 6, 4 heads, 64 tokens of 32 px in patches of 4\)/m);
  assert.match(shown, /^\| the peer's recipe, demo, --deterministic \| +4 \| +\d[\d.]* \| +10 \| +- \|/m);
  assert.match(shown, /no MFU: the peak of this device is not known/);
});

test('train: on pictures of a folder, with the share of the time that was spent waiting for them', async () => {
  const { rows } = json<{ rows: Row[] }>(ok(await run(['train', ...TOY, '--data', 'pictures', '--recipe', 'preset', '--json'])));
  const wait = rows[0]?.dataWait as number;
  assert.ok(wait >= 0 && wait < 1, `${wait}`);
});

test('a peer in Python: the same sizes are asked for, its answer is set beside ours, and a mode that fails says why', async () => {
  const env = { PYTHON: fakePython() };
  const modes = ['--peer-compile', 'reduce-overhead', '--peer-compile', 'max-autotune'];
  const words = ['--against', 'bench/peer/dsd_torch.py', ...modes, '--json'];
  interface Found {
    readonly rows: readonly Row[];
    readonly peers: readonly { mode: string; ratio: number; memory: number; mfu: number | null }[];
    readonly peerFailures: readonly { mode: string; failure: string }[];
  }
  for (const part of ['train', 'sample']) {
    const { rows, peers, peerFailures } = json<Found>(ok(await run([part, ...TOY, ...words], env)));
    assert.equal(peers.length, 1);
    assert.equal(peers[0]?.mode, 'reduce-overhead');
    assert.ok(Math.abs((peers[0]?.ratio as number) - (rows[0]?.imagesPerSecond as number) / 40) < 1e-9);
    assert.equal(peers[0]?.memory, 2 * 2 ** 30);
    assert.deepEqual(peerFailures, [{ mode: 'max-autotune', failure: 'torch.OutOfMemoryError: CUDA out of memory' }]);
  }
  const asked = readFileSync(join(folder, 'asked'), 'utf8').trim().split('\n');
  assert.equal(asked.length, 4);
  assert.match(
    asked[0] as string,
    /dsd_torch\.py --json --compile reduce-overhead --batch 4 --steps 2 --sample 0 --device cpu --dtype \w+/,
  );
  assert.match(
    asked[0] as string,
    /--model \{"width":32,"depth":3,"heads":2,"hidden":64,"image":16,"patch":4,"latent":8,"classes":9\} --threads 1$/,
  );
  assert.match(asked[2] as string, / --sample 2 /);
  const garbled = await run(['train', ...TOY, '--against', 'bench/peer/dsd_torch.py', '--peer-compile', 'graph'], env);
  assert.deepEqual([garbled.code, /the program did not answer with a number for '\w+': nonsense/.test(garbled.stderr)], [1, true]);
  const alone = await run(['train', ...TOY, '--against', 'bench/peer/dsd_torch.py'], { PYTHON: '/nowhere/python3' });
  assert.deepEqual([alone.code, /--against wants PyTorch in Python/.test(alone.stderr)], [1, true]);
  const absent = await run(['train', ...TOY, '--against', 'nowhere.py'], env);
  assert.deepEqual([absent.code, /there is no file 'nowhere\.py'/.test(absent.stderr)], [2, true]);
});

test('sample: many pictures and one alone', async () => {
  const { rows, passes: of } = json<{ rows: Row[]; passes: number }>(ok(await run(['sample', ...TOY, '--json'])));
  assert.deepEqual([rows.map(({ batch }) => batch), of], [[4, 1], 5]);
  assert.match(
    ok(await run(['sample', ...TOY])).stdout,
    /^2 Euler steps with guidance, then decoding \(5 forward passes a picture\).*^\| ours +\| +4 /ms,
  );
});

test('ops: every part of a block, forward and backward, beside its floor', async () => {
  const words = ['ops', ...TOY, '--dtype', 'float32'];
  interface Operator {
    readonly name: string;
    readonly pass: string;
    readonly microseconds: number;
    readonly plain: number | null;
    readonly bytes: number;
    readonly flops: number;
    readonly floor: number;
    readonly distance: number;
  }
  interface Found {
    readonly ceilings: { readonly bytes: number; readonly flops: number };
    readonly operators: readonly Operator[];
    readonly products: readonly { name: string; pass: string; flopsPerSecond: number }[];
  }
  const { ceilings, operators, products } = json<Found>(ok(await run([...words, '--json'])));
  assert.deepEqual(
    operators.map(({ pass }) => pass),
    [...Array.from({ length: 4 }, () => ['forward', 'backward']).flat(), 'update'],
  );
  for (const { name, bytes, flops, floor, distance, microseconds, plain } of operators) {
    const [moving, computing] = [(bytes / ceilings.bytes) * 1e6, (flops / ceilings.flops) * 1e6];
    // One part takes the longer of the two; in a block some parts take the one and some the other.
    if (name !== 'a whole block') assert.ok(Math.abs(floor / Math.max(moving, computing) - 1) < 1e-9);
    else assert.ok(floor >= Math.max(moving, computing) * 0.999 && floor <= (moving + computing) * 1.001);
    assert.ok(Math.abs(distance / (microseconds / floor) - 1) < 1e-9);
    assert.ok((plain === null || plain > 0) && bytes > 0);
  }
  assert.deepEqual(
    products.map(({ name, pass }) => `${name} ${pass}`),
    ['qkv', 'proj', 'gate_up', 'down'].flatMap((name) => ['forward', 'dx', 'dw'].map((pass) => `${name} ${pass}`)),
  );
  assert.match(ok(await run(words)).stdout, /^a block, forward and backward: \d/m);
});

test('the parts of a block: their FLOPs are those of the trunk, and their two forms agree', () => {
  const { model } = findWork({ preset: 'toy', network: undefined, set: [] });
  const shape: Shape = { model, batch: 2, device: 'cpu', compute: 'float32' };
  const products = blockProducts(shape).reduce((sum, { rows, into, out }) => sum + 2 * rows * into * out, 0);
  const rest = blockParts(shape).reduce((sum, { forward, times }) => sum + times * forward.flops, 0);
  assert.equal((products + rest) * model.depth, 2 * forwardFlops(model));
  for (const { name, make } of blockParts(shape)) {
    scope(() => {
      const { inputs, fused, plain } = make(7);
      const all = (form: () => readonly Tensor[]): Tensor[] => {
        const outputs = form();
        return [...outputs, ...(grad([outputs.map((output) => output.square().sum()).reduce((a, b) => a.add(b))], inputs) as Tensor[])];
      };
      const [ours, theirs] = [all(fused), all(plain)];
      for (const [i, tensor] of ours.entries()) {
        const other = theirs[i] as Tensor;
        const apart = Number(tensor.sub(other).norm().item()) / Number(other.norm().item());
        assert.ok(apart < 1e-5, `${name}, tensor ${i}: ${apart}`);
      }
    });
  }
});

test('data: the loader alone, on JPEGs that a script makes', async () => {
  const make = spawnSync(process.execPath, [join(packageRoot(), 'bench', 'pictures.mjs'), join(folder, 'jpegs'), '30', '24', '3'], {
    encoding: 'utf8',
  });
  assert.match(make.stdout, /^30 JPEGs of 24 x 24 in 3 classes, \d\.\d kB each$/m, make.stderr);
  const words = ['data', '--data', 'jpegs', '--size', '16', '--batch', '8', '--workers', '1', '--quiet'];
  const found = json<{ imagesPerSecond: number; pictures: number }>(ok(await run([...words, '--json'])));
  assert.ok(found.imagesPerSecond > 0);
  assert.ok(found.pictures > 20 && found.pictures <= 30, 'some are held out');
  const { code, stderr } = await run(['data']);
  assert.deepEqual([code, /--data FOLDER/.test(stderr)], [2, true]);
});

test('flags that would do nothing are refused', async () => {
  for (const [words, message] of [
    [['step', '--recipe', 'peer'], /--recipe is for dsd bench train$/m],
    [['sample', '--data', 'pictures'], /--data is for dsd bench train, data$/m],
    [['--profile'], /--profile is for dsd bench train, sample$/m],
    [['train', ...TOY, '--profile', '--device', 'cpu'], /--profile is of what a GPU does/],
    [['train', '--device', 'cuda:1'], /CUDA_VISIBLE_DEVICES=1 makes another one the first/],
  ] as const) {
    const { code, stderr } = await run(words);
    assert.deepEqual([code, message.test(stderr)], [2, true], `${words.join(' ')}\n${stderr}`);
  }
});

test('the work is that of the table in the issue: sizes, passes, peaks', () => {
  const of = (network: 'T' | 'S' | 'M' | 'B', ...set: string[]) => findWork({ preset: undefined, network, set }).model;
  assert.deepEqual(
    (['S', 'M', 'B'] as const).map((name) => (countParameters(of(name)).model / 1e6).toFixed(1)),
    ['42.0', '117.9', '204.7'],
  );
  assert.equal(of('T', 'data.image=128').image / of('T').patch, 8, '64 tokens');
  const named = (network: 'T' | 'B' | undefined, ...set: string[]) => findWork({ preset: undefined, network, set }).network;
  assert.deepEqual(
    [named(undefined), named('B'), named('T', 'data.image=128'), named(undefined, 'model.depth=2')],
    ['imagenet-256-B', 'imagenet-256-B', 'T', 'width 768, depth 2'],
  );
  assert.equal(passes(findWork({ preset: 'imagenet-256-B', network: undefined, set: [] }).config.objective), 11.5);
  assert.equal(peakOf({ device: 'cpu', compute: 'bfloat16', about: '' }, undefined), undefined);
  assert.equal(peakOf({ device: 'cpu', compute: 'float32', about: '' }, 2), 2e12);
});

test('kernels are told apart by the names that libraries give them', () => {
  for (const [name, group] of [
    ['nvjet_sm90_tst_192x192_64x4_2x1_v_bz_coopB_TNT', 'matrix products'],
    ['void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x2_tn_align8>(...)', 'matrix products'],
    ['sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64', 'matrix products'],
    ['void cublasLt::splitKreduce_kernel<32, 16, int, float>(...)', 'matrix products'],
    ['cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128', 'attention'],
    ['void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128, 128, 4>>(...)', 'attention'],
    ['fmha_cutlassF_bf16_aligned_64x128_rf_sm80', 'attention'],
    ['void at::native::(anonymous namespace)::multi_tensor_apply_kernel<...FusedAdamMathFunctor<float, 4>>', 'optimizer and averages'],
    ['Memcpy HtoD (Pageable -> Device)', 'copies and fills'],
    ['Memset (Device)', 'copies and fills'],
    ['void at::native::elementwise_kernel<128, 4, at::native::direct_copy_kernel_cuda(...)>', 'copies and fills'],
    ['void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::MeanOps<...>>>', 'reductions'],
    ['void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<float, float, float>>', 'elementwise'],
    ['triton_poi_fused_add_mul_3', 'elementwise'],
    ['somebody_elses', 'other'],
  ] as const)
    assert.equal(groupOf(name), group, name);
  assert.ok(brief(`void at::native::${'x'.repeat(500)}`).length <= 90);
});

/** Names of the kernels of a CUDA file; what a macro puts into a name is a digit here. */
function kernelsOf(source: string): string[] {
  const names = source.matchAll(
    /__global__\s+void\s+(?:(?:DSD_CLUSTER|__launch_bounds__)\((?:[^()]|\([^()]*\))*\)[\s\\]*)*(\w+(?:##\w+)*)\s*\(/g,
  );
  return [...names].map(([, name]) => (name as string).replaceAll(/##[A-Za-z]+/g, '1').replaceAll('##', ''));
}

test('every kernel of ours is in the group that its file is for', () => {
  const folder = join(packageRoot(), 'native', 'kernels', 'cuda');
  const files = readdirSync(folder).filter((name) => name.endsWith('.cu'));
  const named = files.flatMap((file) => {
    const source = readFileSync(join(folder, file), 'utf8');
    const kernels = kernelsOf(source);
    assert.equal(kernels.length, source.match(/__global__/g)?.length, `${file}: ${kernels.join(' ')}`);
    // Where a macro has the name as its first argument: those of its uses.
    const uses = [...source.matchAll(/^DSD_\w+\((dsd_\w+)/gm)].map(([, name]) => name as string);
    const own = kernels.filter((kernel) => kernel.startsWith('dsd_'));
    assert.ok(own.length === kernels.length || uses.length > 0, `${file}: ${kernels.join(' ')}`);
    return [...own, ...uses].map((kernel) => ({ file, kernel }));
  });
  for (const { file, kernel } of named) {
    const groups = { attention: 'attention', optimizer: 'optimizer and averages', draw: 'random draws' };
    const fused = kernel.startsWith('dsd_product') ? 'matrix products' : 'our fused operators';
    const group = groups[file.split(/[-.]/, 1)[0] as keyof typeof groups] ?? fused;
    assert.equal(groupOf(kernel), group, `${kernel} of ${file}`);
  }
  const kernels = new Set(named.map(({ kernel }) => kernel));
  for (const kernel of [
    'dsd_squares',
    'dsd_quintic',
    'dsd_draw',
    'dsd_attention_1',
    'dsd_attention_hopper',
    'dsd_add_norm_gradient_1_1',
    'dsd_swiglu_product_hopper',
  ])
    assert.ok(kernels.has(kernel), `${kernel} is not among ${[...kernels].join(' ')}`);
});

test("a profile's groups and the time in which the device waits make up the step", () => {
  const kernels = [
    { name: 'nvjet_a', calls: 20, microseconds: 6000 },
    { name: 'dsd_swiglu', calls: 10, microseconds: 2000 },
    { name: 'nvjet_b', calls: 2, microseconds: 1000 },
  ];
  const found = stepProfile({ kernels, busy: 9000 }, 2, 5);
  assert.deepEqual(found.groups, [
    { group: 'matrix products', calls: 11, milliseconds: 3.5, share: 0.7 },
    { group: 'our fused operators', calls: 5, milliseconds: 1, share: 0.2 },
  ]);
  assert.ok(Math.abs(found.gap - 0.5) < 1e-9 && Math.abs(found.gapShare - 0.1) < 1e-9);
  assert.deepEqual(found.top[0], { name: 'nvjet_a', calls: 10, microseconds: 3000 });
  assert.match(showProfile(found).join('\n'), /^\| the device waits +\| +\| 0\.500 \| 10\.0 % \|$/m);
  assert.equal(stepProfile({ kernels, busy: 12_000 }, 2, 5).gap, 0, 'a profiler may see more than the wall clock did');
});

test('tables are Markdown', () => {
  assert.deepEqual(markdown(['', 'n'], [['a|b', '12'], ['c']], [1]), [
    '|      |   n |',
    '| ---- | --: |',
    '| a\\|b |  12 |',
    '| c    |     |',
  ]);
});
