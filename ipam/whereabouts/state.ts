/**
 * Where a node keeps what it remembers of attachments. The directories are those of networks: when the
 * members of etcd change, or the path of the kubeconfig, nothing is lost.
 *
 *     /var/lib/cni/whereabouts/<backend>/<network>/<digest>            a release that waits, see pending.ts
 *     /var/lib/cni/whereabouts/kubernetes/<network>/held/<digest>      what an attachment may have
 *     /var/lib/cni/whereabouts/pools/<digest>.lock                     held while an IPPool is changed
 */

import { createHash } from 'node:crypto';

const stateRoot = '/var/lib/cni/whereabouts';

/** Where what waits of a network is kept. @param network is one segment of a path, as the runner checks. */
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

/** A name for a file, of any text. */
export function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}
