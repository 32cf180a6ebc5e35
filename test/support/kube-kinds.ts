/**
 * Kinds of objects that the stand-in for a kube-apiserver knows: those of Kubernetes, and the custom ones that
 * the manifests in conf/kubernetes define.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadAll } from 'js-yaml';
import type { Kind, Schema } from './kube-objects.ts';

/** The parts of a CustomResourceDefinition that the stand-in uses. */
interface Definition {
  readonly kind: string;
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string; readonly plural: string };
    readonly versions: readonly {
      readonly name: string;
      readonly schema: { readonly openAPIV3Schema: Schema };
    }[];
  };
}

interface Role {
  readonly kind: string;
  readonly rules: readonly { readonly resources: readonly string[]; readonly verbs: readonly string[] }[];
}

/** The plugins that have a manifest in conf/kubernetes. */
export const plugins = ['multus', 'whereabouts'] as const;

/** The objects of a plugin's manifest. */
export function manifestOf(plugin: (typeof plugins)[number]): readonly { readonly kind: string }[] {
  const file = join(import.meta.dirname, `../../conf/kubernetes/${plugin}.yaml`);
  return loadAll(readFileSync(file, 'utf8')) as { kind: string }[];
}

function isDefinition(object: { readonly kind: string }): object is Definition {
  return object.kind === 'CustomResourceDefinition';
}

export const kinds: readonly Kind[] = [
  { apiVersion: 'v1', kind: 'Pod', plural: 'pods', hasStatus: true },
  { apiVersion: 'v1', kind: 'Node', plural: 'nodes', isClusterWide: true, hasStatus: true },
  { apiVersion: 'v1', kind: 'Namespace', plural: 'namespaces', isClusterWide: true, hasStatus: true },
  ...plugins
    .flatMap((plugin) => manifestOf(plugin).filter(isDefinition))
    .map(({ spec: { group, names, versions } }) => ({
      apiVersion: `${group}/${versions[0]!.name}`,
      kind: names.kind,
      plural: names.plural,
      schema: versions[0]!.schema.openAPIV3Schema,
    })),
];

/** What the role in a plugin's manifest allows, by RBAC verb and resource. */
export function allowedByManifest(
  plugin: (typeof plugins)[number],
): (user: string, verb: string, resource: string) => boolean {
  const { rules } = manifestOf(plugin).find(({ kind }) => kind === 'ClusterRole') as Role;
  return (_user, verb, resource) =>
    rules.some(({ resources, verbs }) => resources.includes(resource) && verbs.includes(verb));
}

const verbs: Readonly<Record<string, string>> = {
  GET: 'get',
  POST: 'create',
  PUT: 'update',
  PATCH: 'patch',
  DELETE: 'delete',
};

/** The RBAC verb for a request. @param name of the object that it addresses, if any. */
export function verbOf(method: string, name: string | undefined): string {
  return method === 'GET' && name === undefined ? 'list' : (verbs[method] ?? method);
}
