/** The Inception of 2015 as a feature network: FID, sFID and the Inception Score are defined by it. */
import type { Weights } from '../nn/weights.js';
import { type Device, linear, scope, type Tensor, zeros } from '../torch/index.js';
import type { Extractor, Features } from './features.js';
import { inPieces, run } from './inception.js';
import { loadInception } from './inception-weights.js';

const DIMENSION = 2048;
/** Channels of the spatial features, out of 192, at 17 x 17 places. */
const SPATIAL = 7;
const PLACES = 17 * 17;
const CLASSES = 1008;

/** The features of FID. */
export class Inception2015 implements Extractor {
  readonly name = 'inception-2015';
  readonly distance = 'FID';
  readonly dimension = DIMENSION;

  private constructor(
    private readonly weights: Weights,
    readonly source: string,
    private readonly device: Device,
  ) {}

  /**
   * @param path TorchScript or safetensors, see `loadInception`
   * @throws FailureError when it is another file; DiskError
   */
  static open(path: string, device: Device): Inception2015 {
    const { weights, sha256 } = loadInception(path, device);
    return new Inception2015(weights, `Inception of 2015-12-05, weights ${sha256.slice(0, 16)}`, device);
  }

  /**
   * `pooled`: the last block's mean over places (`pool_3`). `spatial`: for sFID, (B, 17 * 17 * 7), places before channels: the first 7
   * channels of the 1 x 1 branch of the sixth mixed block (`mixed_6/conv`), as ADM's evaluator takes them (arXiv 2105.05233). `logits`: 1,008
   * of them, without their bias, which the Inception Score's first program left out, and so all that followed it (arXiv 1606.03498).
   */
  features(pixels: Tensor): Required<Features> {
    return scope(() => {
      const [count = 0] = pixels.shape;
      const room = (width: number): Tensor => zeros([count, width], { device: this.device });
      const all = { pooled: room(DIMENSION), spatial: room(PLACES * SPATIAL), logits: room(CLASSES) };
      inPieces(pixels, this.device, 'origin', (x, at, take) => {
        const put = (to: Tensor, value: Tensor): Tensor => to.narrow(0, at, take).copy_(value);
        const last = run(this.weights, x.sub(128).mul_(1 / 128), 'mixed_10', (layer, [first]) => {
          if (layer === 'mixed_6') put(all.spatial, first!.narrow(1, 0, SPATIAL).permute(0, 2, 3, 1).flatten(1));
        });
        const pooled = put(all.pooled, last.mean([2, 3]));
        put(all.logits, linear(pooled, this.weights.get('output.weight')));
      });
      return all;
    });
  }

  dispose(): void {
    this.weights.dispose();
  }
}
