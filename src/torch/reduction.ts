/** What a loss does with its elements. */

export type Reduction = 'none' | 'mean' | 'sum';

/** libtorch's at::Reduction. @throws TypeError for another word. */
export function reductionCode(loss: string, reduction: Reduction): number {
  const code = ['none', 'mean', 'sum'].indexOf(reduction);
  if (code < 0)
    throw new TypeError(`${loss}: reduction must be 'none', 'mean' or 'sum', found ${JSON.stringify(reduction) ?? typeof reduction}`);
  return code;
}
