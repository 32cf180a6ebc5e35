/**
 * Where a node keeps what it remembers about attachments. Directories are per network: nothing is lost
 * when the members of etcd or the path of the kubeconfig change.
 *
 *     /var/lib/cni/whereabouts/<backend>/<network>/<digest>            a pending release, see pending.ts
 *     /var/lib/cni/whereabouts/kubernetes/<network>/held/<digest>      what an attachment may have
 *     /var/lib/cni/whereabouts/pools/<digest>.lock                     held while an IPPool is changed
 */

import { createHash } from 'node:crypto';

const stateRoot = '/var/lib/cni/whereabouts';

/** Where a network's pending releases are kept. @param network is one path segment, as the runner checks. */
export function directoryOf(backend: 'etcd' | 'kubernetes', network: string): string {
  return `${stateRoot}/${backend}/${network}`;
}

/** Where files say what attachments may have in the objects of the Kubernetes API. */
export function heldDirectoryOf(network: string): string {
  return `${directoryOf('kubernetes', network)}/held`;
}

/** The lock of a pool. @param cluster tells clusters apart, as the path of the kubeconfig does. */
export function poolLockFile(cluster: string, pool: string): string {
  return `${stateRoot}/pools/${digest(JSON.stringify([cluster, pool]))}.lock`;
}

/** Whether a name is a {@link digest}. */
export const isDigest = (name: string): boolean => /^[0-9a-f]{32}$/.test(name);

/** A file name made from any text. */
export function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}
