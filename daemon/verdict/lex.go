package verdict

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// source is an expectation as CEL reads it.
type source struct {
	text   []rune // as written
	cel    []rune // in CEL
	origin []int  // of each rune of cel: where in text the token begins that it comes from
	names  []*name
}

// The tokens whose spelling is more than a character.
var (
	wordToken   = regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*`)
	numberToken = regexp.MustCompile(`^(\d+(\.\d+)?|\.\d+)([eE][+-]?\d+)?`)
	suffixToken = regexp.MustCompile(`^[\pL\pN_.]*`)
	spacedUnit  = regexp.MustCompile(`^[ \t]+(ns|us|µs|μs|ms|s|m|h)\b`)
	percentSign = regexp.MustCompile(`^[ \t]*%`)
	// operand is what would make a remainder of a percentage.
	operand = regexp.MustCompile(`^\s*[\w."'(]`)
	text    = regexp.MustCompile(`^(?:"""(?s:.*?)"""|'''(?s:.*?)'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')`)
	comment = regexp.MustCompile(`^//[^\n]*`)
	spaces  = regexp.MustCompile(`^\s+`)
	symbol  = regexp.MustCompile(`^(?:&&|\|\||==|!=|<=|>=|[()<>!?:+\-*/,])`)
)

// mistakes are what people write for something else.
var mistakes = map[string]string{
	"=": `to compare is "=="`, "&": `and is "&&"`, "|": `or is "||"`, "≤": `write "<="`, "≥": `write ">="`, "≠": `write "!="`,
	"and": `and is "&&"`, "or": `or is "||"`, "not": `not is "!"`,
	"in": `there is no "in"; compare with "==", and join with "||"`,
}

// lex writes an expectation in CEL: numbers and percentages become doubles, durations calls of duration(). What stands
// between quotes stays as it is. It refuses what is no token of the language, and names that there are not.
func lex(written string) (*source, *Error) {
	s := &source{text: []rune(written)}
	for at := 0; at < len(s.text); {
		rest := string(s.text[at:])
		width, err := s.token(at, rest)
		if err != nil {
			return nil, err
		}
		at += width
	}
	return s, nil
}

// token reads the token at the beginning of rest and answers how many characters it takes.
func (s *source) token(at int, rest string) (width int, err *Error) {
	take := func(token, cel string) int {
		s.emit(at, cel)
		return utf8.RuneCountInString(token)
	}
	if gap := spaces.FindString(rest) + comment.FindString(rest); gap != "" {
		return take(gap, " "), nil
	}
	if quoted := text.FindString(rest); quoted != "" {
		return take(quoted, quoted), nil
	}
	if number := numberToken.FindString(rest); number != "" {
		return s.number(at, rest, number)
	}
	if word := wordToken.FindString(rest); word != "" {
		if err := s.word(at, word); err != nil {
			return 0, err
		}
		return take(word, word), nil
	}
	if found := symbol.FindString(rest); found != "" {
		return take(found, found), nil
	}
	first, _ := utf8.DecodeRuneInString(rest)
	switch {
	case mistakes[string(first)] != "":
		return 0, s.errorf(at, "%s", mistakes[string(first)])
	case first == '%':
		return 0, s.errorf(at, "%% makes a percentage of the number before it, as in 0.1%%; there is no remainder")
	case first == '"' || first == '\'':
		return 0, s.errorf(at, "the text that begins here does not end")
	}
	return 0, s.errorf(at, "%q has no meaning here", first)
}

// number reads what begins with a number: a number, a percentage or a duration.
func (s *source) number(at int, rest, number string) (width int, err *Error) {
	whole := number + suffixToken.FindString(rest[len(number):])
	rest = rest[len(whole):]
	width = utf8.RuneCountInString(whole)
	if whole != number {
		d, err := time.ParseDuration(whole)
		if err != nil {
			return 0, s.errorf(at, "%q is neither a number nor a duration, which is written as 200us, 2ms, 1.5s or 1m30s", whole)
		}
		s.emit(at, `duration("`+d.String()+`")`)
		return width, nil
	}
	if unit := spacedUnit.FindString(rest); unit != "" {
		return 0, s.errorf(at, "a duration is written without a space: %s%s", number, strings.TrimSpace(unit))
	}
	if sign := percentSign.FindString(rest); sign != "" {
		if operand.MatchString(rest[len(sign):]) {
			return 0, s.errorf(at, "%s%% is a percentage, and needs an operator behind it; there is no remainder", number)
		}
		share, err := percent(number)
		if err != nil {
			return 0, s.errorf(at, "%s%% is too large", number)
		}
		s.emit(at, double(share))
		return width + utf8.RuneCountInString(sign), nil
	}
	value, parseErr := strconv.ParseFloat(number, 64)
	if parseErr != nil {
		return 0, s.errorf(at, "%s is too large", number)
	}
	s.emit(at, double(value))
	return width, nil
}

// percent reads a number as so many hundredths, to the nearest double.
func percent(number string) (float64, error) {
	digits, exponent, _ := strings.Cut(strings.ToLower(number), "e")
	power := 0
	if exponent != "" {
		var err error
		if power, err = strconv.Atoi(exponent); err != nil {
			return 0, err
		}
	}
	return strconv.ParseFloat(fmt.Sprintf("%se%d", digits, power-2), 64)
}

// double writes a number so that CEL reads the same as a double.
func double(value float64) string {
	return strconv.FormatFloat(value, 'e', -1, 64)
}

// word checks a name, and notes those of the report.
func (s *source) word(at int, word string) *Error {
	if word == "true" || word == "false" || word == "duration" {
		return nil
	}
	known := byName[word]
	if known == nil {
		if meant := mistakes[strings.ToLower(word)]; meant != "" {
			return s.errorf(at, "%s", meant)
		}
		message := fmt.Sprintf("there is no name %q", shorten(word))
		if meant := nearest(shorten(word)); meant != "" {
			message += fmt.Sprintf("; did you mean %q?", meant)
		}
		return s.errorf(at, "%s", message)
	}
	if !slices.Contains(s.names, known) {
		s.names = append(s.names, known)
	}
	return nil
}

func (s *source) emit(at int, cel string) {
	for _, r := range cel {
		s.cel = append(s.cel, r)
		s.origin = append(s.origin, at)
	}
}

// errorf makes an error about the token that begins at the character at; len(text) is the end.
func (s *source) errorf(at int, format string, args ...any) *Error {
	return &Error{Column: at + 1, Message: fmt.Sprintf(format, args...), excerpt: excerpt(s.text, at)}
}

// around is how many characters an excerpt shows on each side.
const around = 40

// excerpt is the text around a character with a caret under it.
func excerpt(text []rune, at int) string {
	from, to := max(at-around, 0), min(at+around, len(text))
	before, after := "", ""
	if from > 0 {
		before = "..."
	}
	if to < len(text) {
		after = "..."
	}
	shown := slices.Clone(text[from:to])
	for i, r := range shown {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			shown[i] = ' '
		}
	}
	return "  " + before + string(shown) + after + "\n  " + strings.Repeat(" ", len(before)+at-from) + "^"
}

// shorten keeps a word that is repeated in a message readable.
func shorten(word string) string {
	if len(word) > around {
		return word[:around] + "..."
	}
	return word
}
