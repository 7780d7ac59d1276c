/**
 * InceptionV3 (arXiv 1512.00567) as it was published in December 2015, with which FID, sFID and the Inception Score are defined. It differs
 * from later ones of that name, torchvision's among them: its average pools do not count the padding, and the last block's pool is a max.
 * Up to the seventh mixed block Keras's network is the same, so `nsfwjs.ts` runs on it too.
 *
 * A function of its weights: `LAYERS` is the network, and names are those of the graph of 2015. Batch norms lie in the convolutions, see
 * `inception-weights.ts`.
 */
import { UsageError } from '../core/errors.js';
import type { Weights } from '../nn/weights.js';
import { avgPool2d, cat, type Device, exactConv2d, maxPool2d, noGrad, scope, type Tensor } from '../torch/index.js';
import { type Grid, resizeBilinear } from './resize.js';

export type Size = readonly [height: number, width: number];

/** A convolution with batch norm and ReLU. */
export interface Conv {
  /** In the graph of 2015, and in torchvision's module. */
  readonly name: string;
  readonly torchvision: string;
  readonly into: number;
  readonly out: number;
  readonly kernel: Size;
  readonly stride: 1 | 2;
  readonly padding: Size;
}

/** 3 x 3. At stride 2 without padding, at stride 1 with a border of one that does not count. */
type Pool = 'max/2' | 'max' | 'average';

/** Several convolutions at one place each take what comes there; their results are joined. */
type Step = Conv | Pool | readonly Conv[];

/** Branches each take the layer's input; their results are joined in this order. */
export interface Layer {
  readonly name: string;
  readonly branches: readonly (readonly Step[])[];
}

/** Sides of the input. */
export const SIDE = 299;
/** Pictures in one pass: the largest layer holds 6 MB for each, two or three times over. */
const PICTURES = 16;

type Draft = Pick<Conv, 'out' | 'kernel' | 'stride' | 'padding'> & { readonly suffix: readonly [string, string] };
type DraftStep = Draft | Pool | readonly Draft[];

/** Stride 1, as large as its input. */
const conv = (name: string, torchvision: string, out: number, kernel: Size = [1, 1]): Draft => ({
  ...{ suffix: [name, torchvision], out, kernel, stride: 1 },
  padding: [(kernel[0] - 1) / 2, (kernel[1] - 1) / 2],
});
/** Without padding. */
const bare = (name: string, torchvision: string, out: number, kernel: Size, stride: 1 | 2): Draft => ({
  ...{ suffix: [name, torchvision], out, kernel, stride, padding: [0, 0] },
});

const mixed35 = (pooled: number): DraftStep[][] => [
  [conv('conv', 'branch1x1', 64)],
  [conv('tower.conv', 'branch5x5_1', 48), conv('tower.conv_1', 'branch5x5_2', 64, [5, 5])],
  [
    conv('tower_1.conv', 'branch3x3dbl_1', 64),
    conv('tower_1.conv_1', 'branch3x3dbl_2', 96, [3, 3]),
    conv('tower_1.conv_2', 'branch3x3dbl_3', 96, [3, 3]),
  ],
  ['average', conv('tower_2.conv', 'branch_pool', pooled)],
];
const to17: DraftStep[][] = [
  [bare('conv', 'branch3x3', 384, [3, 3], 2)],
  [
    conv('tower.conv', 'branch3x3dbl_1', 64),
    conv('tower.conv_1', 'branch3x3dbl_2', 96, [3, 3]),
    bare('tower.conv_2', 'branch3x3dbl_3', 96, [3, 3], 2),
  ],
  ['max/2'],
];
const mixed17 = (width: number): DraftStep[][] => [
  [conv('conv', 'branch1x1', 192)],
  [
    conv('tower.conv', 'branch7x7_1', width),
    conv('tower.conv_1', 'branch7x7_2', width, [1, 7]),
    conv('tower.conv_2', 'branch7x7_3', 192, [7, 1]),
  ],
  [
    conv('tower_1.conv', 'branch7x7dbl_1', width),
    conv('tower_1.conv_1', 'branch7x7dbl_2', width, [7, 1]),
    conv('tower_1.conv_2', 'branch7x7dbl_3', width, [1, 7]),
    conv('tower_1.conv_3', 'branch7x7dbl_4', width, [7, 1]),
    conv('tower_1.conv_4', 'branch7x7dbl_5', 192, [1, 7]),
  ],
  ['average', conv('tower_2.conv', 'branch_pool', 192)],
];
const to8: DraftStep[][] = [
  [conv('tower.conv', 'branch3x3_1', 192), bare('tower.conv_1', 'branch3x3_2', 320, [3, 3], 2)],
  [
    conv('tower_1.conv', 'branch7x7x3_1', 192),
    conv('tower_1.conv_1', 'branch7x7x3_2', 192, [1, 7]),
    conv('tower_1.conv_2', 'branch7x7x3_3', 192, [7, 1]),
    bare('tower_1.conv_3', 'branch7x7x3_4', 192, [3, 3], 2),
  ],
  ['max/2'],
];
const mixed8 = (pool: Pool): DraftStep[][] => [
  [conv('conv', 'branch1x1', 320)],
  [
    conv('tower_conv', 'branch3x3_1', 384),
    [conv('tower_mixed_conv', 'branch3x3_2a', 384, [1, 3]), conv('tower_mixed_conv_1', 'branch3x3_2b', 384, [3, 1])],
  ],
  [
    conv('tower_1_conv', 'branch3x3dbl_1', 448),
    conv('tower_1_conv_1', 'branch3x3dbl_2', 384, [3, 3]),
    [conv('tower_1_mixed_conv', 'branch3x3dbl_3a', 384, [1, 3]), conv('tower_1_mixed_conv_1', 'branch3x3dbl_3b', 384, [3, 1])],
  ],
  [pool, conv('tower_2_conv', 'branch_pool', 192)],
];

/** The network: what a layer's branches are called in the graph of 2015 and in torchvision. Input (B, 3, 299, 299). */
export const LAYERS: readonly Layer[] = connect([
  ['', '', [[bare('conv', 'Conv2d_1a_3x3', 32, [3, 3], 2)]]], // (B, 32, 149, 149)
  ['', '', [[bare('conv_1', 'Conv2d_2a_3x3', 32, [3, 3], 1)]]], // (B, 32, 147, 147)
  ['', '', [[conv('conv_2', 'Conv2d_2b_3x3', 64, [3, 3])]]], // (B, 64, 147, 147)
  ['', '', [['max/2']]], // (B, 64, 73, 73)
  ['', '', [[conv('conv_3', 'Conv2d_3b_1x1', 80)]]], // (B, 80, 73, 73)
  ['', '', [[bare('conv_4', 'Conv2d_4a_3x3', 192, [3, 3], 1)]]], // (B, 192, 71, 71)
  ['', '', [['max/2']]], // (B, 192, 35, 35)
  ['mixed', 'Mixed_5b', mixed35(32)], // (B, 256, 35, 35)
  ['mixed_1', 'Mixed_5c', mixed35(64)], // (B, 288, 35, 35)
  ['mixed_2', 'Mixed_5d', mixed35(64)], // (B, 288, 35, 35)
  ['mixed_3', 'Mixed_6a', to17], // (B, 768, 17, 17)
  ['mixed_4', 'Mixed_6b', mixed17(128)], // (B, 768, 17, 17)
  ['mixed_5', 'Mixed_6c', mixed17(160)],
  ['mixed_6', 'Mixed_6d', mixed17(160)],
  ['mixed_7', 'Mixed_6e', mixed17(192)],
  ['mixed_8', 'Mixed_7a', to8], // (B, 1280, 8, 8)
  ['mixed_9', 'Mixed_7b', mixed8('average')], // (B, 2048, 8, 8)
  ['mixed_10', 'Mixed_7c', mixed8('max')], // (B, 2048, 8, 8)
]);

/** Full names, and each convolution's input channels from what comes before it. */
function connect(layers: readonly (readonly [string, string, DraftStep[][]])[]): Layer[] {
  let channels = 3;
  return layers.map(([name, torchvision, drafts]) => {
    const full = (draft: Draft, into: number): Conv => {
      const { suffix, ...rest } = draft;
      const [own, theirs] = name === '' ? suffix : ([`${name}.${suffix[0]}`, `${torchvision}.${suffix[1]}`] as const);
      return { name: own, torchvision: theirs, into, ...rest };
    };
    let joined = 0;
    const branches = drafts.map((draft) => {
      let width = channels;
      const steps = draft.map((step): Step => {
        if (typeof step === 'string') return step;
        const into = width;
        const made = [step].flat().map((each) => full(each, into));
        width = made.reduce((sum, { out }) => sum + out, 0);
        return made.length === 1 ? made[0]! : made;
      });
      joined += width;
      return steps;
    });
    channels = joined;
    return { name, branches };
  });
}

/** The convolutions as far as the layer `last`, in the order of the layers and of their branches, which is also that of Keras's numbers. */
export function convolutions(last = 'mixed_10'): Conv[] {
  const end = LAYERS.findIndex(({ name }) => name === last) + 1;
  return LAYERS.slice(0, end)
    .flatMap(({ branches }) => branches.flat(2))
    .filter((step) => typeof step !== 'string');
}

/**
 * Runs the network on x (B, 3, 299, 299), scaled as its weights want it, as far as the layer `last`.
 * @param weights `<name>.weight` and `<name>.bias` of each convolution on the way
 * @param onBranches sees the branches of each layer before they are joined; they are gone when it returns
 */
export function run(weights: Weights, x: Tensor, last: string, onBranches?: (layer: string, branches: readonly Tensor[]) => void): Tensor {
  let h = x;
  for (const { name, branches } of LAYERS) {
    const before = h;
    h = scope(() => {
      const results = branches.map((steps) => steps.reduce((value, each) => step(weights, value, each), before));
      onBranches?.(name, results);
      return results.length === 1 ? results[0]! : cat(results, 1);
    });
    if (before !== x) before.dispose(); // at 16 pictures all layers together would be half a gigabyte
    if (name === last) return h;
  }
  throw new TypeError(`Inception has no layer ${last}`);
}

function step(weights: Weights, x: Tensor, each: Step): Tensor {
  if (each === 'max/2') return maxPool2d(x, [3, 3], [2, 2]);
  if (each === 'max') return maxPool2d(x, [3, 3], [1, 1], [1, 1]);
  if (each === 'average') return avgPool2d(x, [3, 3], [1, 1], [1, 1], false);
  if (Array.isArray(each))
    return cat(
      each.map((one: Conv) => step(weights, x, one)),
      1,
    );
  const { name, stride, padding } = each as Conv;
  return exactConv2d(x, weights.get(`${name}.weight`), weights.get(`${name}.bias`), [stride, stride], padding).clamp_(0);
}

/** Pieces of at most 16 pictures: as (b, 3, 299, 299) float32 in the range of pixels, resized, on the device. @throws UsageError for other channels */
export function inPieces(pixels: Tensor, device: Device, grid: Grid, use: (x: Tensor, first: number, count: number) => void): void {
  const [count = 0, , , channels] = pixels.shape;
  if (pixels.dtype !== 'uint8') throw new TypeError(`Inception takes uint8 pixels, found ${pixels.dtype}`);
  if (pixels.shape.length !== 4 || (channels !== 1 && channels !== 3))
    throw new UsageError(`Inception takes pictures with 1 or 3 channels, found ${channels}`);
  noGrad(() => {
    for (let at = 0; at < count; at += PICTURES) {
      const take = Math.min(PICTURES, count - at);
      scope(() => {
        const resized = resizeBilinear(pixels.narrow(0, at, take).to({ device }), SIDE, grid);
        const x = channels === 1 ? cat([resized, resized, resized], 3) : resized;
        use(x.permute(0, 3, 1, 2), at, take); // channels last in memory, the faster way
      });
    }
  });
}
