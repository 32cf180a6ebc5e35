/**
 * NodeSlicePool objects of whereabouts, whose controller gives each node a part of a range. Source: type
 * NodeSlicePool of whereabouts' API v1alpha1.
 */

import { CniError, ErrorCode } from '../../../lib/errors.ts';
import { Prefix } from '../../../lib/ip.ts';
import { type KubernetesClient, type ObjectMeta, pathOf } from '../../../lib/kubernetes/client.ts';
import { failedAs } from '../../../lib/kubernetes/error.ts';
import { isObject } from '../../../lib/object.ts';
import { kindPath } from './names.ts';

/** A part of a range, and the node that has it. */
export interface Slice {
  readonly node: string;
  readonly range: Prefix;
}

/** There is no object that says which slices nodes have. */
export class NoSlicesError extends CniError {}

/** Reads the slices that nodes have. @param name of the NodeSlicePool. */
export async function readSlices(
  client: KubernetesClient,
  namespace: string,
  name: string,
): Promise<readonly Slice[]> {
  const path = `${kindPath(namespace, 'nodeslicepools')}${pathOf(name)}`;
  const { status } = await client
    .read<{ metadata: ObjectMeta; status?: { allocations?: unknown } }>(path)
    .catch((error) => {
      if (!failedAs(error, 'not-found')) throw error;
      throw new NoSlicesError(
        ErrorCode.TryAgainLater,
        `There is no NodeSlicePool "${name}" in namespace "${namespace}", of which "node_slice_size" takes a part. See that whereabouts' node-slice-controller runs, or take "node_slice_size" out`,
      );
    });
  const all = Array.isArray(status?.allocations) ? (status.allocations as readonly unknown[]) : [];
  return all.flatMap((one) => {
    const { nodeName, sliceRange } = isObject(one) ? one : {};
    const range = typeof sliceRange === 'string' ? Prefix.tryParse(sliceRange) : undefined;
    return typeof nodeName === 'string' && nodeName !== '' && range
      ? [{ node: nodeName.toLowerCase(), range: range.network }]
      : [];
  });
}

/** The slice of a node. @throws CniError when it has none. */
export function sliceOf(slices: readonly Slice[], node: string, name: string): Prefix {
  const found = slices.find((slice) => slice.node === node);
  if (found) return found.range;
  throw new CniError(
    ErrorCode.TryAgainLater,
    `NodeSlicePool "${name}" has no slice for node "${node}". Wait for whereabouts' node-slice-controller, make the range larger, or correct the name of the node in "NODENAME"`,
  );
}
