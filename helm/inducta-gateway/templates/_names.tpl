{{- define "gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "gateway.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "gateway.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "gateway.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What never changes for one release: a Deployment's selector cannot. */}}
{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gateway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gateway.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "gateway.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "gateway.redisUrl" -}}
{{- if .Values.redis.bundled.enabled }}redis://:$(REDIS_PASSWORD)@{{ include "gateway.fullname" . }}-redis:6379/0
{{- else }}{{ .Values.redis.url }}{{ end }}
{{- end }}

{{- define "gateway.redisSecret" -}}
{{- if .Values.redis.passwordSecret.name }}{{ .Values.redis.passwordSecret.name }}
{{- else if .Values.redis.bundled.enabled }}{{ include "gateway.fullname" . }}-redis{{ end }}
{{- end }}

{{/* Whole seconds, rounded up, of a duration such as 250ms, 5s, 10m. */}}
{{- define "gateway.seconds" -}}
{{- $number := regexFind "^[0-9_]+" . | replace "_" "" | int64 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- if eq $unit "ms" }}{{ div (add $number 999) 1000 }}
{{- else }}{{ mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit) }}{{ end }}
{{- end }}

{{/* Long enough for everything that happens between a pod's end being asked for and its streams' end. */}}
{{- define "gateway.graceSeconds" -}}
{{- $drain := .Values.config.drain }}
{{- add (int .Values.preStopSeconds) (include "gateway.seconds" $drain.delay) (include "gateway.seconds" $drain.timeout) 10 }}
{{- end }}

{{/* The port of an address such as 0.0.0.0:8080. */}}
{{/* Of several addresses, the first is the one that the service leads to. */}}
{{- define "gateway.listen" -}}
{{- $listen := .Values.config.listen -}}
{{- if kindIs "slice" $listen }}{{ first $listen }}{{ else }}{{ $listen }}{{ end }}
{{- end }}

{{- define "gateway.port" -}}
{{- $port := regexFind "[0-9]+$" . | int }}
{{- if not $port }}{{ fail (printf "%s: Kubernetes needs a port of its own, not 0" .) }}{{ end }}
{{- $port }}
{{- end }}

{{- define "gateway.configMap" -}}
{{- .Values.existingConfigMap | default (include "gateway.fullname" .) }}
{{- end }}

{{/* How many workers a pod has; empty where only its machine decides, as with `auto`. */}}
{{- define "gateway.workers" -}}
{{- regexFind "^[0-9]+$" (.Values.config.workers | default 1 | toString) }}
{{- end }}

{{/* Bytes of a quantity of Kubernetes' such as 2Gi, 500M or 1e9, and of a size of the gateway's such as 256MiB. */}}
{{- define "gateway.bytes" -}}
{{- $text := toString . }}
{{- $number := regexFind "^[0-9._]+([eE][+-]?[0-9]+)?" $text | replace "_" "" | float64 }}
{{- $unit := regexFind "[A-Za-z]*$" $text | trimSuffix "B" }}
{{- $decimal := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 }}
{{- $binary := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 }}
{{- $factor := get (merge $decimal $binary) $unit }}
{{- if not $factor }}{{ fail (printf "%s is not a size, such as 2Gi" $text) }}{{ end }}
{{- mulf $number $factor | int64 }}
{{- end }}

{{/*
A volume with room for what each worker may write there: `each` bytes, and as much again for what a worker that has ended
left. Kubernetes evicts a pod that takes more than `sizeLimit`, and an emptyDir ends with its pod.
*/}}
{{- define "gateway.volume" -}}
{{- $volume := deepCopy (get .root.Values .name) }}
{{- if hasKey $volume "emptyDir" }}
{{- $empty := $volume.emptyDir | default dict }}
{{- $workers := include "gateway.workers" .root }}
{{- $given := $empty.sizeLimit | default "" }}
{{- if and $given $workers (le (include "gateway.bytes" $given | int64) (mul $workers .each)) }}
{{- fail (printf "%s.emptyDir.sizeLimit: %v is too small for config.workers: %s. Each worker takes up to %s of the volume, and Kubernetes evicts a pod that takes more. Leave it out, or raise it." .name $given $workers .written) }}
{{- else if and (not $given) (not $workers) }}
{{- fail (printf "%s.emptyDir.sizeLimit is missing. With config.workers: %v the chart does not know how many workers there are; each takes up to %s of the volume." .name .root.Values.config.workers .written) }}
{{- else if not $given }}
{{- $empty = set $empty "sizeLimit" (printf "%dGi" (div (add (mul (add1 (int $workers)) .each) 1073741823) 1073741824)) }}
{{- end }}
{{- $volume = set $volume "emptyDir" $empty }}
{{- end }}
{{- toYaml $volume }}
{{- end }}
