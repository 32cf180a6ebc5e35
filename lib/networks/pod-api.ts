/**
 * What the Kubernetes API knows about the pod that a call is for, and about the networks that it may have.
 * Source: types Pod of Kubernetes' core/v1 and NetworkAttachmentDefinition of the Kubernetes Network Plumbing
 * Working Group's k8s.cni.cncf.io/v1.
 */

import type { Call } from '../cni/call.ts';
import { decode, object, record, type Schema, string } from '../cni/schema.ts';
import { CniError, ErrorCode } from '../errors.ts';
import { type KubernetesClient, kubernetesClient, pathOf } from '../kubernetes/client.ts';
import { failedAs } from '../kubernetes/error.ts';
import { readKubeconfig } from '../kubernetes/kubeconfig.ts';
import { annotationsOf, type Pod, podOf } from './pod.ts';

/**
 * How long a request may take in milliseconds: a runtime retries ADD, and often repeats DEL of what is long
 * gone.
 */
const longestRequest = { ADD: 10_000, DEL: 3000, STATUS: 10_000 };

/** Set by the kubelet: where it has the pod from, which is not "api" for a pod from a file. */
const sourceAnnotation = 'kubernetes.io/config.source';
/** On a definition: the resource of a device plugin whose devices its pods get. */
const resourceAnnotation = 'k8s.v1.cni.cncf.io/resourceName';

const metadata = object({ uid: string(), annotations: record(string()) });
const podSchema = object({ metadata });
const definitionSchema = object({ metadata, spec: object({ config: string() }) });

/** A NetworkAttachmentDefinition. */
export interface Definition {
  readonly namespace: string;
  readonly name: string;
  /** JSON of a plugin or a conflist; "" stands for the network of that name on disk. */
  readonly config: string;
  /** As in "vendor.example/nic"; undefined for a network without devices. */
  readonly resourceName: string | undefined;
}

/** The API, as a call needs it. */
export class PodApi {
  /** The pod that the runtime names. */
  readonly pod: Pod;
  private readonly call: Call;
  private readonly client: KubernetesClient;
  private uid = '';

  /**
   * @param kubeconfig path of the file that says where the API is.
   * @throws CniError when the file cannot be used.
   */
  constructor(call: Call, kubeconfig: string) {
    const timeoutMs = longestRequest[call.command as keyof typeof longestRequest] ?? longestRequest.ADD;
    this.call = call;
    this.client = kubernetesClient(readKubeconfig(kubeconfig), { timeoutMs });
    this.pod = podOf(call);
  }

  /** UID of the pod as the kubelet knows it, or else as the API told {@link annotations}; "" before that. */
  get podUid(): string {
    return this.pod.uid || this.uid;
  }

  /** @throws CniError NotAvailable when it does not answer, or does not know this node. */
  async ping(): Promise<void> {
    try {
      await this.client.get('/version');
    } catch (error) {
      const { message, details } = error as CniError;
      throw new CniError(ErrorCode.NotAvailable, message, details);
    }
  }

  /**
   * The pod's annotations; those that the runtime passes if it names no pod.
   * @throws CniError when the pod does not exist any more, or is a different one of the same name;
   *   KubernetesError.
   */
  async annotations(): Promise<Readonly<Record<string, string>>> {
    const { namespace, name, uid } = this.pod;
    if (!this.hasPod) return annotationsOf(this.call);
    const answer = await this.find(this.podPath());
    if (answer === undefined)
      throw new CniError(
        ErrorCode.UnknownContainer,
        `Pod "${namespace}/${name}" does not exist at the Kubernetes API. Delete the container: its pod was deleted, or is not known there yet`,
      );
    const { metadata = {} } = decoded(podSchema, answer, `pod "${namespace}/${name}"`);
    const { uid: known = '', annotations = {} } = metadata;
    // The API has only a copy of a pod from a file, with a UID of its own.
    const isFromFile = (annotations[sourceAnnotation] ?? 'api') !== 'api';
    if (uid !== '' && uid !== known && !isFromFile)
      throw new CniError(
        ErrorCode.UnknownContainer,
        `Pod "${namespace}/${name}" has UID "${known}" at the Kubernetes API, but this container is of the one with UID "${uid}". Delete the container: its pod was deleted and created again`,
      );
    this.uid = known;
    return annotations;
  }

  /** Finds a definition. @returns undefined when there is none. @throws KubernetesError */
  async definition(namespace: string, name: string): Promise<Definition | undefined> {
    const kind = 'network-attachment-definitions';
    const path = pathOf('apis', 'k8s.cni.cncf.io', 'v1', 'namespaces', namespace, kind, name);
    const answer = await this.find(path);
    if (answer === undefined) return undefined;
    const what = `NetworkAttachmentDefinition "${namespace}/${name}"`;
    const { metadata = {}, spec = {} } = decoded(definitionSchema, answer, what);
    const resourceName = metadata.annotations?.[resourceAnnotation] || undefined;
    return { namespace, name, config: spec.config ?? '', resourceName };
  }

  /**
   * Adds annotations to the pod through its "status" subresource, which needs the fewest rights. A pod that
   * was deleted meanwhile, or created again, is left alone.
   * @throws KubernetesError
   */
  async annotate(annotations: Readonly<Record<string, string>>): Promise<void> {
    if (!this.hasPod || Object.keys(annotations).length === 0) return;
    const body = { metadata: { annotations, ...(this.uid && { uid: this.uid }) } };
    try {
      await this.client.patch(this.podPath('status'), body, 'merge');
    } catch (error) {
      // "Invalid" refers to the UID, if it is a different pod by now.
      if (!failedAs(error, 'not-found', 'conflict', 'invalid') || (await this.isStillThere())) throw error;
      this.call.warn(
        `The status of pod "${this.pod.namespace}/${this.pod.name}" is not written, as the pod does not exist any more`,
      );
    }
  }

  private async isStillThere(): Promise<boolean> {
    const answer = await this.find(this.podPath());
    return decoded(podSchema, answer ?? {}, 'a pod').metadata?.uid === this.uid;
  }

  private get hasPod(): boolean {
    return this.pod.namespace !== '' && this.pod.name !== '';
  }

  private podPath(...more: readonly string[]): string {
    const { namespace, name } = this.pod;
    return pathOf('api', 'v1', 'namespaces', namespace, 'pods', name, ...more);
  }

  private async find(path: string): Promise<unknown> {
    try {
      return await this.client.get(path);
    } catch (error) {
      if (failedAs(error, 'not-found')) return undefined;
      throw error;
    }
  }
}

function decoded<T>(schema: Schema<T>, answer: unknown, what: string): T {
  try {
    return decode(schema, answer, 'answer');
  } catch (error) {
    throw new CniError(
      ErrorCode.TryAgainLater,
      `What the Kubernetes API says of ${what} makes no sense. See that "server" in the kubeconfig is the address of the API`,
      (error as Error).message,
    );
  }
}
