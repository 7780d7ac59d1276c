/**
 * One network, three roles: encode, denoise, decode. ARCHITECTURE.md, The method: network.
 * Shapes: B pictures of H x H pixels and `channels` colours, values in [-1, 1], channels last; N tokens; C latent channels; d width.
 */
import { constant, truncatedNormal } from '../nn/init.js';
import { EPSILON, project } from '../nn/layers.js';
import { Weights } from '../nn/weights.js';
import { type Device, type DType, layerNorm, noGrad, scope, type Tensor, where } from '../torch/index.js';
import { checkModel, type ModelConfig, parameters, tokens } from './sizes.js';
import { type Rotary, rotary, type TrunkInput, type TrunkOutput, trunk, unconditional } from './vit.js';

/** What the encoder returns. */
export interface Encoded {
  readonly z: Tensor; // (B, N, C)
  readonly tokens: Tensor; // (B, N, d), the trunk's last
  readonly tap?: Tensor; // (B, N, d), after the block asked for
  /** The latent before its LayerNorm; its effective rank shows a collapse that the norm would hide. */
  readonly raw: Tensor; // (B, N, C)
}

export interface Denoised {
  readonly prediction: Tensor; // (B, N, C): the clean latent, what is left of it (ObjectiveConfig.preconditioned), or the velocity
  readonly tap?: Tensor; // (B, N, d)
}

/** One use of the network: what goes through the trunk, and what its head makes of that. Made by encoding(), denoising() and decoding(). */
export interface Pass<T> {
  readonly input: TrunkInput;
  finish(output: TrunkOutput): T;
}

/** (B, H, H, ch) -> (B, N, p*p*ch). */
export function patchify(config: ModelConfig, x: Tensor): Tensor {
  const { image, patch, channels } = config;
  const n = image / patch;
  return x
    .reshape(-1, n, patch, n, patch, channels)
    .permute(0, 1, 3, 2, 4, 5)
    .reshape(-1, n * n, patch * patch * channels);
}

/** (B, N, p*p*ch) -> (B, H, H, ch). */
export function unpatchify(config: ModelConfig, patches: Tensor): Tensor {
  const { image, patch, channels } = config;
  const n = image / patch;
  return patches.reshape(-1, n, n, patch, patch, channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, image, image, channels);
}

export class Model {
  /** The weights that a step computes with: `weights`, or a copy of them in a lower precision. */
  private constructor(
    readonly config: ModelConfig,
    readonly weights: Weights,
    private readonly turn: Rotary,
    /** The type of norms, latents and losses, and on a CPU of the residual stream. */
    private readonly wide: DType,
  ) {}

  /** The model over given weights, float32 or float64. @throws UsageError when the configuration's shapes do not fit each other. */
  static of(config: ModelConfig, weights: Weights): Model {
    checkModel(config);
    const like = weights.get('trunk.role.weight');
    return new Model(config, weights, rotary(config, like), like.dtype);
  }

  /** A new network whose every value is a function of (seed, parameter name). */
  static init(config: ModelConfig, seed: number, options: { dtype?: DType; device: Device }): Model {
    checkModel(config);
    const at = { dtype: options.dtype ?? 'float32', device: options.device } as const;
    const tensors = new Map<string, Tensor>();
    for (const [name, { shape, init }] of parameters(config)) {
      tensors.set(name, typeof init === 'number' ? constant(shape, init, at) : truncatedNormal(seed, name, shape, init.std, at));
    }
    return Model.of(config, new Weights(tensors));
  }

  /**
   * The same network computing its token-wise layers in `dtype`: the weights are cast once, here, and gradients flow back through the cast to
   * the wide ones. The returned model must not outlive the scope it is made in.
   */
  in(dtype: DType): Model {
    if (dtype === this.wide) return this;
    const table = parameters(this.config);
    return new Model(
      this.config,
      this.weights.map((tensor, name) => (table.get(name)?.perToken ? tensor.to({ dtype }) : tensor)),
      this.turn,
      this.wide,
    );
  }

  /** Frees the weights and the tables. */
  dispose(): void {
    this.weights.dispose();
    this.turn.cos.dispose();
    this.turn.sin.dispose();
  }

  /** x (B, H, H, ch); `mask` (B, N) bool hides patches behind a learned token; `tapAfter`: see trunk. */
  encoding(x: Tensor, options: { mask?: Tensor; tapAfter?: number } = {}): Pass<Encoded> {
    const embedded = scope(() => project(this.weights.linear('patch_in'), patchify(this.config, x))); // (B, N, d)
    const h = options.mask ? where(options.mask.unsqueeze(-1), this.weights.get('mask_token'), embedded) : embedded;
    return {
      input: { role: 'encode', h, ...unconditional(this.config, x.shape[0] ?? 0, x), tapAfter: options.tapAfter },
      finish: (out) => {
        const raw = project(this.weights.linear('latent_out'), out.tokens).to({ dtype: this.wide });
        const z = this.config.latentNorm ? layerNorm(raw, [this.config.latent], undefined, undefined, EPSILON) : raw;
        return { z, raw, ...out };
      },
    };
  }

  /** z (B, N, C) noisy latent at time t (B), y (B) int64 class (K: none). */
  denoising(z: Tensor, t: Tensor, y: Tensor, options: { tapAfter?: number } = {}): Pass<Denoised> {
    const h = project(this.weights.linear('latent_in'), z);
    return {
      input: { role: 'denoise', h, t, y, tapAfter: options.tapAfter },
      finish: (out) => {
        const prediction = project(this.weights.linear('denoise_out'), out.tokens).to({ dtype: this.wide });
        return out.tap ? { prediction, tap: out.tap } : { prediction };
      },
    };
  }

  /** z (B, N, C) -> pictures (B, H, H, ch), not clamped. */
  decoding(z: Tensor): Pass<Tensor> {
    const h = project(this.weights.linear('latent_in'), z);
    return {
      input: { role: 'decode', h, ...unconditional(this.config, z.shape[0] ?? 0, z) },
      // In a scope: the picture's forms on the way would stay to the end of a step.
      finish: (out) => scope(() => unpatchify(this.config, project(this.weights.linear('patch_out'), out.tokens).to({ dtype: this.wide }))),
    };
  }

  /** Runs several passes as one batch through the trunk: each gets what it would get alone, and the matrix products are larger and fewer. */
  run<T extends readonly Pass<unknown>[]>(...passes: T): { [K in keyof T]: T[K] extends Pass<infer R> ? R : never } {
    const inputs = passes.map(({ input }) => input);
    const outputs = trunk(this.weights, this.config, inputs, this.turn);
    return passes.map((pass, i) => pass.finish(outputs[i] as TrunkOutput)) as never;
  }

  encode(...args: Parameters<Model['encoding']>): Encoded {
    return this.run(this.encoding(...args))[0];
  }
  denoise(...args: Parameters<Model['denoising']>): Denoised {
    return this.run(this.denoising(...args))[0];
  }
  decode(z: Tensor): Tensor {
    return this.run(this.decoding(z))[0];
  }

  /** Encode and decode in batches without gradient: pictures in, pictures out, both (B, H, H, ch). */
  reconstruct(x: Tensor): Tensor {
    return noGrad(() => scope(() => this.decode(this.encode(x).z)));
  }

  /** Shape of the latents of B pictures. */
  latentShape(batch: number): [number, number, number] {
    return [batch, tokens(this.config), this.config.latent];
  }
}
