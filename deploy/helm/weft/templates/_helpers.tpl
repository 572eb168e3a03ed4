{{- define "weft.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of a part: (dict "root" $ "part" "broker"). */}}
{{- define "weft.labels" -}}
{{ include "weft.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: weft
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{- define "weft.selector" -}}
app.kubernetes.io/name: weft
app.kubernetes.io/instance: {{ include "weft.name" .root }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "weft.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The name of the pod itself, as the other brokers and the clients know it. */}}
{{- define "weft.domain" -}}
{{ include "weft.name" . }}-peers.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end -}}

{{/* A list in TOML of all brokers at a port: (dict "root" $ "port" 7600). */}}
{{- define "weft.brokers" -}}
{{- $all := list -}}
{{- range until (int .root.Values.broker.replicas) -}}
{{- $all = append $all (printf "%s-%d.%s:%d" (include "weft.name" $.root) . (include "weft.domain" $.root) (int $.port)) -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}

{{/* Keys of the configuration as variables: WEFT_SECTION__KEY. */}}
{{- define "weft.settings" -}}
{{- range $key, $value := . }}
- name: WEFT_{{ $key | upper | replace "." "__" }}
{{- if kindIs "slice" $value }}
  value: {{ toJson $value | quote }}
{{- else if and (kindIs "float64" $value) (eq $value (floor $value)) }}
  value: {{ int64 $value | quote }}
{{- else }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What Pod Security "restricted" asks of a pod, and a little more. */}}
{{- define "weft.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "weft.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where a pod may run: (dict "root" $ "part" "broker" "values" .Values.broker). */}}
{{- define "weft.placement" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
