/** Kinds of objects that the stand-in for a kube-apiserver knows, with the schemas of custom resources. */

import type { Kind, Schema } from './kube-objects.ts';

const string: Schema = { type: 'string' };
const object = (properties: Record<string, Schema>, required: readonly string[] = []): Schema => ({
  ...{ type: 'object', properties, required },
});

const whereabouts = 'whereabouts.cni.cncf.io/v1alpha1';

/** Source: the definitions in doc/crds of whereabouts, and artifacts of the Network Plumbing Working Group. */
export const kinds: readonly Kind[] = [
  { apiVersion: 'v1', kind: 'Pod', plural: 'pods', hasStatus: true },
  { apiVersion: 'v1', kind: 'Node', plural: 'nodes', isClusterWide: true, hasStatus: true },
  { apiVersion: 'v1', kind: 'Namespace', plural: 'namespaces', isClusterWide: true, hasStatus: true },
  {
    ...{ apiVersion: 'k8s.cni.cncf.io/v1', kind: 'NetworkAttachmentDefinition' },
    plural: 'network-attachment-definitions',
    schema: object({ spec: object({ config: string }) }),
  },
  {
    ...{ apiVersion: whereabouts, kind: 'IPPool', plural: 'ippools' },
    schema: object({
      spec: object(
        {
          range: string,
          allocations: {
            type: 'object',
            additionalProperties: object({ id: string, podref: string, ifname: string }, ['id', 'podref']),
          },
        },
        ['allocations', 'range'],
      ),
    }),
  },
  {
    ...{ apiVersion: whereabouts, kind: 'OverlappingRangeIPReservation' },
    plural: 'overlappingrangeipreservations',
    schema: object(
      {
        spec: object({ containerid: string, podref: string, ifname: string }, ['podref']),
      },
      ['spec'],
    ),
  },
  {
    ...{ apiVersion: whereabouts, kind: 'NodeSlicePool', plural: 'nodeslicepools' },
    schema: object({
      spec: object({ range: string, sliceSize: string }, ['range', 'sliceSize']),
      status: object({
        allocations: {
          type: 'array',
          items: object({ nodeName: string, sliceRange: string }, ['nodeName', 'sliceRange']),
        },
      }),
    }),
  },
];
