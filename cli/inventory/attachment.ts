/** An attachment, as in a host's inventory. */

import type { AttachmentId } from '../../lib/attachment.ts';

/** A port of the host that leads to a container. */
export interface PublishedPort {
  hostPort: number;
  containerPort: number;
  protocol: string;
}

/** The name of a pod, or of a container outside Kubernetes. */
export interface PodName {
  /** The Kubernetes namespace; "" outside Kubernetes. */
  namespace: string;
  name: string;
}

/** A container's connection to a network, as far as anything on the host tells of it. */
export interface HostAttachment extends AttachmentId {
  /** What its runtime calls it, where it says so. */
  pod: PodName | undefined;
  /** Path of the sandbox's namespace; "" when nobody recorded it, or another namespace is there now. */
  netns: string;
  /** Without prefix lengths. */
  ips: string[];
  ports: PublishedPort[];
  /** Interfaces of the host that belong to it. */
  hostInterfaces: string[];
  /** When ADD ended. */
  since: Date | undefined;
  /** Why it no longer belongs to a container; empty if it does. */
  orphaned: string[];
}
