/** An attachment, as a host's inventory has it. */

import type { AttachmentId } from '../../lib/attachment.ts';

/** A port of the host that leads to a container. */
export interface PublishedPort {
  hostPort: number;
  containerPort: number;
  protocol: string;
}

/** The name of a pod, or of a container outside Kubernetes. */
export interface PodName {
  /** Of Kubernetes; "" outside it. */
  namespace: string;
  name: string;
}

/** A container's connection to a network, as far as anything on the host tells. */
export interface HostAttachment extends AttachmentId {
  /** What its runtime calls it, where it says so. */
  pod: PodName | undefined;
  /** Path of the sandbox's namespace; "" when nobody recorded it, or another one is there. */
  netns: string;
  /** Without prefix lengths. */
  ips: string[];
  ports: PublishedPort[];
  /** Interfaces of the host that belong to it. */
  hostInterfaces: string[];
  /** When ADD ended. */
  since: Date | undefined;
  /** Why it no longer belongs to a container; empty for one that is in order. */
  orphaned: string[];
}
