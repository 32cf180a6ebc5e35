/**
 * Objects as a kube-apiserver keeps them: resource versions and conflicts, metadata, pruning by the schemas
 * of custom resources, patches, and selectors. Source: "API Concepts" and "Structural schemas" of Kubernetes;
 * RFC 7386 (merge patch) and RFC 6902 (JSON patch).
 */

import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { Ajv, type ValidateFunction } from 'ajv';
import { applyJsonPatch, applyMergePatch, type PatchOperation } from './kube-patch.ts';

/** An object of the API. */
export interface KubeObject {
  apiVersion?: string;
  kind?: string;
  metadata: {
    name: string;
    namespace?: string;
    uid?: string;
    resourceVersion?: string;
    creationTimestamp?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
  spec?: Record<string, unknown>;
  status?: Record<string, unknown>;
}

/** An OpenAPI schema, as in a CustomResourceDefinition. */
export interface Schema {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema;
  readonly items?: Schema;
  readonly required?: readonly string[];
}

/** A kind of objects. */
export interface Kind {
  /** As in "v1" or "whereabouts.cni.cncf.io/v1alpha1". */
  readonly apiVersion: string;
  readonly kind: string;
  readonly plural: string;
  readonly isClusterWide?: boolean;
  /** Whether it has a status subresource. */
  readonly hasStatus?: boolean;
  /** Only custom resources have one. */
  readonly schema?: Schema;
}

/** A refused request, as the API reports it. */
export class Refusal extends Error {
  readonly status: number;
  readonly reason: string;
  /** Of the object; undefined where the API says nothing of one. */
  readonly of: string | undefined;

  constructor(status: number, reason: string, message: string, of?: string) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.of = of;
  }
}

/** The objects of one kind. */
export class Objects {
  readonly kind: Kind;
  /** "ippools.whereabouts.cni.cncf.io" */
  readonly resource: string;
  private readonly all = new Map<string, KubeObject>();
  private readonly nextVersion: () => string;
  private readonly isValid: ValidateFunction | undefined;

  /** @param nextVersion gives the next resource version of the cluster. */
  constructor(kind: Kind, nextVersion: () => string) {
    this.kind = kind;
    const [group] = kind.apiVersion.includes('/') ? kind.apiVersion.split('/') : [];
    this.resource = group ? `${kind.plural}.${group}` : kind.plural;
    this.nextVersion = nextVersion;
    this.isValid = kind.schema && new Ajv({ strict: false, validateFormats: false }).compile(kind.schema);
  }

  get(namespace: string, name: string): KubeObject {
    const found = this.all.get(`${namespace}/${name}`);
    if (found) return structuredClone(found);
    throw new Refusal(404, 'NotFound', `${this.resource} "${name}" not found`, name);
  }

  /** @param namespace undefined for all namespaces. */
  list(namespace: string | undefined, labels = '', fields = ''): KubeObject[] {
    return [...this.all.values()]
      .filter(({ metadata }) => namespace === undefined || metadata.namespace === namespace)
      .filter((one) => matches(labels, (key) => one.metadata.labels?.[key]))
      .filter((one) => matches(fields, (key) => fieldOf(one, key)))
      .sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
      .map((one) => structuredClone(one));
  }

  create(namespace: string | undefined, body: KubeObject): KubeObject {
    const { name } = body.metadata;
    if (!/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name) || name.length > 253)
      throw this.invalid(
        name,
        `metadata.name: Invalid value: "${name}": a lowercase RFC 1123 subdomain must …`,
      );
    if (body.metadata.resourceVersion)
      throw new Refusal(400, 'BadRequest', 'resourceVersion should not be set on objects to be created');
    const key = `${namespace ?? ''}/${name}`;
    if (this.all.has(key))
      throw new Refusal(409, 'AlreadyExists', `${this.resource} "${name}" already exists`);
    const metadata = {
      ...{ ...body.metadata, ...(namespace !== undefined && { namespace }), uid: randomUUID() },
      creationTimestamp: new Date().toISOString().replace(/\.\d+/, ''),
    };
    return this.store(key, { ...body, metadata });
  }

  update(namespace: string, name: string, body: KubeObject, isStatus = false): KubeObject {
    const old = this.get(namespace, name);
    const { resourceVersion, uid } = body.metadata;
    if (!resourceVersion && this.kind.schema)
      throw this.invalid(
        name,
        'metadata.resourceVersion: Invalid value: 0x0: must be specified for an update',
      );
    this.compare(old, { resourceVersion, uid });
    // An update of the status changes annotations and labels only of built-in kinds.
    const metadata = { ...(isStatus && this.kind.schema ? old : body).metadata, ...immutable(old) };
    const parts = this.kind.hasStatus
      ? isStatus
        ? { ...old, status: body.status }
        : { ...body, status: old.status }
      : body;
    const changed = { ...parts, metadata };
    return isDeepStrictEqual(prune(changed, this.kind.schema), old)
      ? old
      : this.store(`${namespace}/${name}`, changed as KubeObject);
  }

  /** @param type media type. */
  patch(namespace: string, name: string, patch: unknown, type: string, isStatus = false): KubeObject {
    const old = this.get(namespace, name);
    if (type === 'application/json-patch+json') {
      const changed = applyJsonPatch(old, patch as PatchOperation[]);
      if (changed === undefined)
        throw this.invalid(name, 'the server rejected our request due to an error in our request');
      return this.update(namespace, name, changed as KubeObject, isStatus);
    }
    // The strategic one also merges certain lists by their keys, which no test here needs.
    const takes = [
      'application/merge-patch+json',
      ...(this.kind.schema ? [] : ['application/strategic-merge-patch+json']),
    ];
    if (!takes.includes(type))
      throw new Refusal(
        415,
        'UnsupportedMediaType',
        `the body of the request was in an unknown format - accepted media types include: ${takes.join(', ')}`,
      );
    const changed = applyMergePatch(old, patch) as KubeObject;
    const { uid } = changed.metadata;
    if (uid !== old.metadata.uid)
      throw this.invalid(name, `metadata.uid: Invalid value: "${uid}": field is immutable`);
    return this.update(namespace, name, changed, isStatus);
  }

  remove(
    namespace: string,
    name: string,
    preconditions: { uid?: string; resourceVersion?: string } = {},
  ): void {
    this.compare(this.get(namespace, name), preconditions);
    this.nextVersion();
    this.all.delete(`${namespace}/${name}`);
  }

  private store(key: string, object: KubeObject): KubeObject {
    const pruned = prune(object, this.kind.schema) as KubeObject;
    if (this.isValid && !this.isValid(pruned)) {
      const [mistake] = this.isValid.errors ?? [];
      throw this.invalid(
        object.metadata.name,
        `${mistake?.instancePath}: Invalid value: ${mistake?.message}`,
      );
    }
    const { apiVersion, kind } = this.kind;
    const metadata = { ...pruned.metadata, resourceVersion: this.nextVersion() };
    const stored = { ...pruned, apiVersion, kind, metadata };
    this.all.set(key, structuredClone(stored));
    return stored;
  }

  private compare(
    old: KubeObject,
    wanted: { uid?: string | undefined; resourceVersion?: string | undefined },
  ): void {
    const { name, uid, resourceVersion } = old.metadata;
    const refuse = (why: string) => {
      throw new Refusal(
        409,
        'Conflict',
        `Operation cannot be fulfilled on ${this.resource} "${name}": ${why}`,
      );
    };
    if (wanted.uid !== undefined && wanted.uid !== uid) refuse('Precondition failed: UID');
    if (wanted.resourceVersion && wanted.resourceVersion !== resourceVersion)
      refuse('the object has been modified; please apply your changes to the latest version and try again');
  }

  private invalid(name: string, why: string): Refusal {
    return new Refusal(422, 'Invalid', `${this.kind.kind} "${name}" is invalid: ${why}`);
  }
}

function immutable({ metadata }: KubeObject): Partial<KubeObject['metadata']> {
  const { name, namespace, uid, creationTimestamp } = metadata;
  return {
    name,
    ...(namespace !== undefined && { namespace }),
    uid: uid!,
    creationTimestamp: creationTimestamp!,
  };
}

const keyOf = ({ metadata }: KubeObject) => `${metadata.namespace ?? ''}/${metadata.name}`;

function fieldOf({ metadata, spec, status }: KubeObject, key: string): string {
  const fields: Record<string, unknown> = {
    'metadata.name': metadata.name,
    'metadata.namespace': metadata.namespace,
    'spec.nodeName': spec?.nodeName,
    'status.phase': status?.phase,
  };
  if (!(key in fields)) throw new Refusal(400, 'BadRequest', `field label not supported: ${key}`);
  return `${fields[key] ?? ''}`;
}

/** Whether values match a selector such as "a=b,c!=d,e,!f". */
function matches(selector: string, valueFor: (key: string) => string | undefined): boolean {
  return selector
    .split(',')
    .filter(Boolean)
    .every((term) => {
      const [, not, key = '', operator, value] = /^(!?)([^=!]+?)(?:(!=|==?)(.*))?$/.exec(term) ?? [];
      const found = valueFor(key);
      if (operator === undefined) return (found === undefined) === (not === '!');
      return (found === value) === (operator !== '!=');
    });
}

/** Removes what a schema does not define, as the API does with custom resources. */
function prune(value: unknown, schema: Schema | undefined, isTop = true): unknown {
  if (!schema || typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((one) => prune(one, schema.items, false));
  const kept = Object.entries(value).flatMap(([key, one]) => {
    if (isTop && ['apiVersion', 'kind', 'metadata'].includes(key)) return [[key, one]];
    const inner = schema.properties?.[key] ?? schema.additionalProperties;
    return inner ? [[key, prune(one, inner, false)]] : [];
  });
  return Object.fromEntries(kept);
}
